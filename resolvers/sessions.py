"""Registering, signing in and out."""

from auth.permissions import anyone
from graph.context import Info
from graph.language.describe import object_type
from graph.language.guards import mutation
from graph.sessions import (
    LoginInput,
    LoginPayload,
    LogoutPayload,
    RefreshSessionInput,
    RefreshSessionPayload,
    RegisterInput,
    RegisterPayload,
    Session,
)


@object_type
class SessionMutations:
    """How people come in and leave."""

    @mutation(allow=anyone)
    async def register(self, info: Info, input: RegisterInput) -> RegisterPayload | None:
        """Make an account for yourself and sign in."""
        context = info.context
        user = await context.services.registration.register(
            email=input.email, name=input.name, password=input.password, address=context.address, now=context.now
        )
        context.cookies = tokens = await context.services.signin.open(user, address=context.address, now=context.now)
        return RegisterPayload(session=Session.of(tokens))

    @mutation(allow=anyone)
    async def login(self, info: Info, input: LoginInput) -> LoginPayload | None:
        """Sign in. A browser is given an HttpOnly cookie too."""
        context = info.context
        context.cookies = tokens = await context.services.signin.login(
            email=input.email, password=input.password, address=context.address, now=context.now
        )
        return LoginPayload(session=Session.of(tokens))

    @mutation(allow=anyone)
    async def refresh_session(self, info: Info, input: RefreshSessionInput) -> RefreshSessionPayload | None:
        """Trade a refresh token for new tokens."""
        context = info.context
        context.cookies = tokens = await context.services.signin.refresh(token=input.refresh_token, now=context.now)
        return RefreshSessionPayload(session=Session.of(tokens))

    @mutation(allow=anyone)
    async def logout(self, info: Info) -> LogoutPayload | None:
        """Sign out."""
        await info.context.services.signin.logout(info.context.viewer, now=info.context.now)
        info.context.cookies = False
        return LogoutPayload(success=True)
