"""Sign-ins as clients see them."""

from datetime import datetime

from auth.signin import Tokens
from graph.language.describe import input_type, object_type
from graph.users import User


@object_type
class Session:
    """What signing in gives."""

    access_token: str
    """Show it as `Authorization: Bearer ...`, or in a WebSocket's `connection_init` as `authorization`."""
    expires_at: datetime
    """When the access token ends; trade the refresh token in before."""
    refresh_token: str
    """Good for one `refreshSession` within 30 days. Using one twice ends the session."""
    user: User
    """Who is signed in."""

    @classmethod
    def of(cls, tokens: Tokens) -> "Session":
        """Shape the tokens of a session."""
        return cls(
            access_token=tokens.access_token,
            expires_at=tokens.expires_at,
            refresh_token=tokens.refresh_token,
            user=User.of(tokens.user),
        )


# ---------------------------------------------------------------- register


@input_type
class RegisterInput:
    """Who you are."""

    email: str
    """The address to sign in with; unique."""
    name: str
    """How you are called, 1 to 100 characters."""
    password: str
    """8 to 128 characters, not easy to guess."""


@object_type
class RegisterPayload:
    """You are registered and signed in."""

    session: Session
    """Your first session."""


# ---------------------------------------------------------------- login


@input_type
class LoginInput:
    """What you sign in with."""

    email: str
    """Your address."""
    password: str
    """Your password."""


@object_type
class LoginPayload:
    """You are signed in; a browser keeps the access token as an HttpOnly cookie too."""

    session: Session
    """Your session."""


# ---------------------------------------------------------------- refreshSession


@input_type
class RefreshSessionInput:
    """The token to trade in."""

    refresh_token: str
    """The newest refresh token of your session."""


@object_type
class RefreshSessionPayload:
    """Your session goes on."""

    session: Session
    """New tokens; the old refresh token is used up."""


# ---------------------------------------------------------------- logout


@object_type
class LogoutPayload:
    """Your session has ended, on every device that shared it; its tokens are dead."""

    success: bool
    """Always true: signing out twice is no fault."""
