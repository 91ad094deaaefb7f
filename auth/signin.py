"""Sign in, refresh, sign out."""

import asyncio
from dataclasses import dataclass
from datetime import datetime

from auth import limits
from auth.passwords import Passwords
from auth.tokens import TokenMaker
from auth.viewer import Viewer
from models import sessions, users
from models.errors import Unauthenticated
from models.store.database import Row


@dataclass(frozen=True, slots=True)
class Tokens:
    """What a person gets for signing in."""

    access_token: str
    expires_at: datetime
    refresh_token: str
    user: Row


class SignIn:
    """Opens and ends sessions."""

    def __init__(self, passwords: Passwords, tokens: TokenMaker) -> None:
        self._passwords = passwords
        self._tokens = tokens

    async def login(self, *, email: str, password: str, address: str, now: datetime) -> Tokens:
        """Check e-mail and password and open a session; `address` is where from.

        Raises `Unauthenticated`, the same and after the same time whether or not there is such an account, and
        `RateLimited` for who tries too often.
        """
        failing = asyncio.get_running_loop().time() + self._passwords.failing_takes_s
        row = await users.with_password(email=email)
        async with limits.guess(email=email, user=row["_id"] if row else None, address=address):
            right, better = await self._passwords.check(password, row["password_hash"] if row else None)
            if row is None or not right or not row["active"]:
                await asyncio.sleep(failing - asyncio.get_running_loop().time())
                raise Unauthenticated("E-mail or password is wrong.")
        await users.seen(row["_id"], now=now)
        session = await sessions.start(row["_id"], address=limits.network(address), now=now)
        # A change of password ends the sessions it finds. One begun after that must not live on the old password, nor
        # may the better hash of the old password replace the new one's.
        hashed = row["password_hash"]
        if not await users.set_password(row["_id"], better or hashed, was=hashed):
            await sessions.end(session["_id"], now=now)
            return await self.login(email=email, password=password, address=address, now=now)
        return self._tokens_of(session, row, now=now)

    async def open(self, user: Row, *, address: str, now: datetime) -> Tokens:
        """Open a session for somebody whose identity is settled."""
        await users.seen(user["_id"], now=now)
        session = await sessions.start(user["_id"], address=limits.network(address), now=now)
        return self._tokens_of(session, user, now=now)

    async def refresh(self, *, token: str, now: datetime) -> Tokens:
        """Trade a refresh token for new tokens. One that was used before ends its session, for whoever stole it."""
        claim = self._tokens.read_refresh(token)
        session = await sessions.renew(claim.session, generation=claim.generation, now=now)
        user = await users.find(session["user"]) if session else None
        if session is None or user is None or not user["active"]:
            raise Unauthenticated("This refresh token is used up. Sign in again.")
        return self._tokens_of(session, user, now=now)

    async def logout(self, viewer: Viewer, *, now: datetime) -> None:
        """End the session that a viewer came with; its tokens are dead at once."""
        if viewer.session is not None:
            await sessions.end(viewer.session, now=now)

    def _tokens_of(self, session: Row, user: Row, *, now: datetime) -> Tokens:
        access, expires_at = self._tokens.access(user["_id"], session["_id"], now=now)
        refresh = self._tokens.refresh(session["_id"], session["generation"], expires_at=session["expires_at"], now=now)
        return Tokens(access, expires_at, refresh, user)
