"""People: who is there, who am I, and changes to accounts."""

from functools import partial
from typing import Annotated

import strawberry

from auth.permissions import admins, anyone, signed_in
from graph.context import Info
from graph.language import nodes, pages
from graph.language.describe import changes, object_type
from graph.language.guards import mutation, query
from graph.language.pages import After, Connection, First
from graph.users import (
    ChangePasswordInput,
    ChangePasswordPayload,
    CreateUserInput,
    CreateUserPayload,
    Role,
    UpdateProfileInput,
    UpdateProfilePayload,
    UpdateUserInput,
    UpdateUserPayload,
    User,
)
from models import users


@object_type
class UserQueries:
    """What can be asked about people."""

    @query(allow=anyone)
    async def me(self, info: Info) -> User | None:
        """Give the person who is signed in; null for nobody and for an API key."""
        row = await info.context.find(users.by_keys, info.context.viewer.user)
        return User.of(row) if row else None

    @query(allow=admins)
    async def users(
        self,
        search: Annotated[
            str | None, strawberry.argument(description="Words that name or e-mail have words beginning with.")
        ] = None,
        role: Annotated[Role | None, strawberry.argument(description="Only these.")] = None,  # type: ignore[valid-type]  # mypy takes an exposed enum for a variable
        active: Annotated[bool | None, strawberry.argument(description="Only these.")] = None,
        first: First = None,
        after: After = None,
    ) -> Connection[User] | None:
        """List people by name."""
        wanted = pages.asked("users", users.BY_NAME, first=first, after=after)
        chosen = users.Filter(search=search, role=role, active=active)
        page = await users.page(chosen, window=wanted.window)
        return wanted.connection(page, User.of, partial(users.count, chosen))


@object_type
class UserMutations:
    """What can be changed about people."""

    @mutation(allow=signed_in)
    async def update_profile(self, info: Info, input: UpdateProfileInput) -> UpdateProfilePayload | None:
        """Change what is written about you."""
        row = await users.update(info.context.viewer.require_user(), changes(input))
        return UpdateProfilePayload(user=User.of(row))

    @mutation(allow=signed_in)
    async def change_password(self, info: Info, input: ChangePasswordInput) -> ChangePasswordPayload | None:
        """Change your password and end your other sessions."""
        context = info.context
        row = await context.services.registration.change_password(
            context.viewer,
            current=input.current_password,
            new=input.new_password,
            address=context.address,
            now=context.now,
        )
        return ChangePasswordPayload(user=User.of(row))

    @mutation(allow=admins)
    async def create_user(self, info: Info, input: CreateUserInput) -> CreateUserPayload | None:
        """Make an account for somebody."""
        row = await info.context.services.registration.create(
            email=input.email, name=input.name, password=input.password, role=input.role, now=info.context.now
        )
        return CreateUserPayload(user=User.of(row))

    @mutation(allow=admins)
    async def update_user(self, info: Info, input: UpdateUserInput) -> UpdateUserPayload | None:
        """Change the role of somebody, shut them out or let them in again. The last active admin stays one."""
        values = changes(input)
        row = await info.context.services.registration.update(
            nodes.decode(input.user, "User", field="user"), values, now=info.context.now
        )
        return UpdateUserPayload(user=User.of(row))
