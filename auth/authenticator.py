"""Cookie, Bearer or connection_init to a Viewer."""

import hashlib
import time
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
_MOST_REMEMBERED: Final = 10_000


class Authenticator:
    """Says who asks. Session, account and key are read once a second for each caller.

    What ends one here shuts it out at once (`forget`); what ends it on another process, within that second.
    """

    def __init__(self, tokens: TokenMaker, *, remembered_s: float = 1.0) -> None:
        self._tokens = tokens
        self._remembered_s = remembered_s
        self._recent: dict[bytes, tuple[float, Viewer]] = {}
        self._forgotten = 0

    def forget(self) -> None:
        """Read anew who anybody is: somebody's rights may have changed."""
        self._recent.clear()
        self._forgotten += 1

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
            return await self._recognise(credential, now=now)
        if cookie is not None:
            try:
                return await self._recognise(cookie, now=now)
            except Unauthenticated:
                return NOBODY
        return NOBODY

    async def _recognise(self, credential: str, *, now: datetime) -> Viewer:
        digest = hashlib.sha256(credential.encode("utf-8", "surrogatepass")).digest()
        clock = time.monotonic()
        until, viewer = self._recent.get(digest, (0.0, NOBODY))
        if clock < until and (viewer.expires_at is None or now < viewer.expires_at):
            return viewer
        forgotten = self._forgotten
        find = self._by_key if credential.startswith(minting.MARK) else self._by_token
        viewer = await find(credential, now=now)
        # What was read before something changed must not be remembered after it.
        if forgotten == self._forgotten:
            if len(self._recent) >= _MOST_REMEMBERED:
                self._recent.clear()
            self._recent[digest] = clock + self._remembered_s, viewer
        return viewer

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
                found[viewer] = replace(viewer, scopes=_scopes(row), agent=row.get("agent")) if row else None
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
        return Viewer(api_key=row["_id"], scopes=_scopes(row), agent=row.get("agent"), expires_at=row["expires_at"])


def _scopes(row: Row) -> frozenset[ApiKeyScope]:
    scopes = frozenset(ApiKeyScope[scope] for scope in row["scopes"])
    return scopes if row["role"] == Role.ADMIN else scopes - keys.FOR_ADMINS
