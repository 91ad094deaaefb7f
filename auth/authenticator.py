"""Cookie, Bearer or connection_init to a Viewer."""

from collections.abc import Collection, Mapping
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Final

from auth import minting
from auth.tokens import TokenMaker
from auth.viewer import NOBODY, Viewer
from models import keys, sessions, users
from models.errors import Unauthenticated
from models.keys import ApiKeyScope
from models.store.database import Row
from models.users import Role

_NOTED_EVERY: Final = timedelta(minutes=1)


class Authenticator:
    """Says who asks. Session, account and key are read at each request, so that ending one shuts it out at once."""

    def __init__(self, tokens: TokenMaker) -> None:
        self._tokens = tokens

    async def authenticate(self, authorization: str | None, cookie: str | None) -> Viewer:
        """Read a Bearer value, else a cookie. Raises `Unauthenticated` for a Bearer that is not good.

        A cookie that is not good counts as none: the browser sends it whether or not anybody means it to, and
        signing in again must be possible.
        """
        now = datetime.now(UTC)
        if authorization is not None:
            scheme, _, credential = authorization.strip().partition(" ")
            credential = credential.strip()
            if scheme.lower() != "bearer" or not credential:
                raise Unauthenticated("The Authorization header reads `Bearer` and a token or an API key.")
            if credential.startswith(minting.MARK):
                return await self._by_key(credential, now=now)
            return await self._by_token(credential, now=now)
        if cookie is not None:
            try:
                return await self._by_token(cookie, now=now)
            except Unauthenticated:
                return NOBODY
        return NOBODY

    async def again(self, viewers: Collection[Viewer]) -> Mapping[Viewer, Viewer | None]:
        """Say who many are by now: the same, with other rights, or nobody any more (None)."""
        now = datetime.now(UTC)
        living = await sessions.all_living([each.session for each in viewers if each.session], now=now)
        usable = await keys.all_usable([each.api_key for each in viewers if each.api_key], now=now)
        found: dict[Viewer, Viewer | None] = {}
        for viewer in viewers:
            if viewer.session is not None:
                row = living.get(viewer.session)
                found[viewer] = replace(viewer, role=Role[row["person"]["role"]]) if row else None
            elif viewer.api_key is not None:
                row = usable.get(viewer.api_key)
                found[viewer] = replace(viewer, scopes=_scopes(row)) if row else None
        return found

    async def _by_token(self, token: str, *, now: datetime) -> Viewer:
        access = self._tokens.read_access(token)
        session = await sessions.living(access.session, now=now)
        if session is None or session["user"] != access.user:
            raise Unauthenticated("This session has ended. Sign in again.")
        person = session["person"]
        if person["last_seen_at"] is None or now - person["last_seen_at"] > _NOTED_EVERY:
            await users.seen(access.user, now=now)
        return Viewer(user=access.user, role=Role[person["role"]], session=access.session, expires_at=access.expires_at)

    async def _by_key(self, secret: str, *, now: datetime) -> Viewer:
        row = await keys.usable(minting.digest(secret), now=now)
        if row is None:
            raise Unauthenticated("This API key is unknown, revoked or expired.")
        if row["last_used_at"] is None or now - row["last_used_at"] > _NOTED_EVERY:
            await keys.used(row["_id"], now=now)
        return Viewer(api_key=row["_id"], scopes=_scopes(row), expires_at=row["expires_at"])


def _scopes(row: Row) -> frozenset[ApiKeyScope]:
    scopes = frozenset(ApiKeyScope[scope] for scope in row["scopes"])
    return scopes if row["role"] == Role.ADMIN else scopes - keys.FOR_ADMINS
