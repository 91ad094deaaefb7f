"""JWTs: issue, verify, rotate keys."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Final, Literal
from uuid import uuid4

import jwt

from models.errors import Unauthenticated
from models.store.database import Key

ISSUER: Final = "agenthub"
_ACCESS: Final = "agenthub"
_REFRESH: Final = "agenthub:refresh"
_LEEWAY_S: Final = 60

Algorithm = Literal["HS256", "HS384", "HS512"]


@dataclass(frozen=True, slots=True)
class Access:
    """What an access token says: who, in which session, until when. The role is not in it: it is read afresh."""

    user: Key
    session: Key
    expires_at: datetime


@dataclass(frozen=True, slots=True)
class Refresh:
    """What a refresh token says: which session, and the token's number in it."""

    session: Key
    generation: int


class TokenMaker:
    """Signs and verifies tokens. An older secret still verifies while it is named, so that secrets can be rotated."""

    def __init__(
        self,
        secret: str,
        *,
        older: Sequence[str] = (),
        algorithm: Algorithm = "HS256",
        life: timedelta = timedelta(minutes=60),
    ) -> None:
        self._algorithm = algorithm
        self._secret = secret
        self._id = _key_id(secret)
        self._secrets = {_key_id(each): each for each in (secret, *older)}
        self._life = life

    def access(self, user: Key, session: Key, *, now: datetime) -> tuple[str, datetime]:
        """Issue an access token; also gives the moment until which it is good."""
        expires_at = (now + self._life).replace(microsecond=0)
        return self._sign({"aud": _ACCESS, "sub": str(user), "sid": str(session), "exp": expires_at}, now), expires_at

    def refresh(self, session: Key, generation: int, *, expires_at: datetime, now: datetime) -> str:
        """Issue the refresh token of one generation of a session."""
        return self._sign({"aud": _REFRESH, "sid": str(session), "gen": generation, "exp": expires_at}, now)

    def read_access(self, token: str) -> Access:
        """Verify an access token. Raises `Unauthenticated`."""
        claims = self._verify(token, _ACCESS, ["sub", "sid"])
        try:
            return Access(Key(claims["sub"]), Key(claims["sid"]), datetime.fromtimestamp(claims["exp"], UTC))
        except (TypeError, ValueError, OverflowError) as error:
            raise _unusable() from error

    def read_refresh(self, token: str) -> Refresh:
        """Verify a refresh token. Raises `Unauthenticated`."""
        claims = self._verify(token, _REFRESH, ["sid", "gen"])
        return Refresh(Key(claims["sid"]), int(claims["gen"]))

    def _sign(self, claims: dict[str, Any], now: datetime) -> str:
        full = {"iss": ISSUER, "iat": now, "jti": uuid4().hex, **claims}
        return jwt.encode(full, self._secret, algorithm=self._algorithm, headers={"kid": self._id})

    def _verify(self, token: str, audience: str, required: Sequence[str]) -> dict[str, Any]:
        try:
            secret = self._secrets[jwt.get_unverified_header(token)["kid"]]
            claims: dict[str, Any] = jwt.decode(
                token,
                secret,
                # One algorithm, ours: what the token's own header asks for does not matter.
                algorithms=[self._algorithm],
                audience=audience,
                issuer=ISSUER,
                leeway=_LEEWAY_S,
                options={"require": ["exp", "iat", "iss", "aud", *required]},
            )
        except jwt.ExpiredSignatureError:
            raise Unauthenticated("This token has expired. Use `refreshSession`, or sign in again.") from None
        except (jwt.InvalidTokenError, KeyError, TypeError, ValueError):
            raise _unusable() from None
        return claims


def _unusable() -> Unauthenticated:
    return Unauthenticated("This token is not good here. Sign in again.")


def _key_id(secret: str) -> str:
    return hashlib.sha256(b"kid:" + secret.encode()).hexdigest()[:16]
