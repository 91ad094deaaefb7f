"""People as clients see them."""

from datetime import datetime
from functools import partial
from typing import TYPE_CHECKING, Annotated, ClassVar

import strawberry
from strawberry import ID, Maybe, Private

import graph.agents
from auth.permissions import Permission, readers
from graph.context import Context, Info
from graph.language import pages
from graph.language.describe import field, input_type, object_type
from graph.language.enums import expose
from graph.language.nodes import Node, key_of
from graph.language.pages import After, Connection, First
from graph.language.rows import reader
from models import agents, users
from models.store.database import Key, Row

if TYPE_CHECKING:
    from graph.agents import Agent

Role = expose(users.Role)


@object_type
class User(Node):
    """A person with an account. Whoever may read sees all people: agents name them as owners and raters."""

    readable_by: ClassVar[Permission] = readers

    key: Private[Key]
    email: str
    """The address to sign in with; unique."""
    name: str
    """How they are called."""
    role: Role  # type: ignore[valid-type]  # mypy takes an exposed enum for a variable
    """What they may do."""
    active: bool
    """Whether they may sign in."""
    created_at: datetime
    """When the account was made."""
    last_seen_at: datetime | None
    """When they were last here, to the minute; null when never."""

    @field
    async def agents(
        self, info: Info, first: First = None, after: After = None
    ) -> Connection[Annotated["Agent", strawberry.lazy("graph.agents")]]:
        """List the agents they own, by name."""
        wanted = pages.asked("agents", agents.BY_NAME, first=first, after=after)
        page = await info.context.load(agents.owned, self.key, window=wanted.window)
        return wanted.connection(page, graph.agents.Agent.of, partial(info.context.count, agents.counts, self.key))

    @field
    async def agent_count(self, info: Info) -> int:
        """Count the agents they own."""
        return await info.context.count(agents.counts, self.key)

    @classmethod
    def of(cls, row: Row) -> "User":
        """Shape a stored account."""
        return _user(row)

    @classmethod
    async def find_node(cls, context: Context, key: str) -> "User | None":  # noqa: ARG003  # some types ask the context
        """Find one by its key."""
        row = await users.find(key_of(key))
        return cls.of(row) if row else None


_user = reader(User)


# ---------------------------------------------------------------- updateProfile


@input_type
class UpdateProfileInput:
    """What to change about yourself; what is left out stays."""

    name: Maybe[str | None]
    """How you are called, 1 to 100 characters."""


@object_type
class UpdateProfilePayload:
    """You, changed."""

    user: User
    """You."""


# ---------------------------------------------------------------- changePassword


@input_type
class ChangePasswordInput:
    """Your old and your new password."""

    current_password: str
    """The one you sign in with now."""
    new_password: str
    """8 to 128 characters, not easy to guess."""


@object_type
class ChangePasswordPayload:
    """Your other sessions have ended; this one goes on."""

    user: User
    """You."""


# ---------------------------------------------------------------- createUser


@input_type
class CreateUserInput:
    """A new account."""

    email: str
    """The address to sign in with; unique."""
    name: str
    """How they are called, 1 to 100 characters."""
    password: str
    """Their first password: 8 to 128 characters, not easy to guess."""
    role: Role = users.Role.USER  # type: ignore[valid-type]  # mypy takes an exposed enum for a variable
    """What they may do."""


@object_type
class CreateUserPayload:
    """The new account."""

    user: User
    """Who may sign in now."""


# ---------------------------------------------------------------- updateUser


@input_type
class UpdateUserInput:
    """What to change about an account; what is left out stays."""

    user: ID
    """Whose account."""
    role: Maybe[Role | None]  # type: ignore[valid-type]  # mypy takes an exposed enum for a variable
    """What they may do."""
    active: Maybe[bool | None]
    """False shuts them out at once, with their sessions and API keys; true lets them in again."""


@object_type
class UpdateUserPayload:
    """The account, changed."""

    user: User
    """Whose account it is."""
