"""Register, change password, deactivate: what touches a secret or ends sessions."""

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from auth import limits
from auth import passwords as rules
from auth.passwords import Passwords
from auth.viewer import Viewer
from models import sessions, text, users
from models.errors import BadInput, Conflict, Forbidden, Unauthenticated
from models.store.database import Key, Row
from models.users import Role, UserFields


class Registration:
    """Makes accounts and changes them."""

    def __init__(self, passwords: Passwords, *, is_open: bool = True) -> None:
        """`is_open`: whether people may register themselves."""
        self._passwords = passwords
        self._is_open = is_open

    async def register(self, *, email: str, name: str, password: str, address: str, now: datetime) -> Row:
        """Make an account for oneself. Raises `Forbidden` where admins make them, `RateLimited` for too many."""
        if not self._is_open:
            raise Forbidden("Registration is closed here. Ask an admin for an account.")
        await limits.register(address=address)
        return await self.create(email=email, name=name, password=password, role=Role.USER, now=now)

    async def create(self, *, email: str, name: str, password: str, role: Role, now: datetime) -> Row:
        """Make an account. Raises `BadInput`, with every fault, and `Conflict` for an e-mail that is taken."""
        values = {"email": email, "name": name, "role": role}
        text.validate(UserFields, values, partial=False, faults=rules.faults(password, email=email))
        return await users.create(values, password_hash=await self._passwords.hash(password), now=now)

    async def ensure(
        self, *, email: str, name: str, password: str, role: Role, now: datetime, check: bool = True
    ) -> tuple[Row, bool]:
        """Make an account unless there is one with this e-mail; says whether it is new.

        `check` off is for the demo's accounts, whose passwords are printed for everybody.
        """
        known = await users.with_password(email=email)
        if known is not None:
            return known, False
        if check:
            return await self.create(email=email, name=name, password=password, role=role, now=now), True
        hashed = await self._passwords.hash(password)
        try:
            row = await users.create({"email": email, "name": name, "role": role}, password_hash=hashed, now=now)
        except Conflict:
            # Another process has just made it.
            known = await users.with_password(email=email)
            if known is None:
                raise
            return known, False
        return row, True

    async def change_password(self, viewer: Viewer, *, current: str, new: str, address: str, now: datetime) -> Row:
        """Change one's password; every other session ends. Raises `RateLimited` for who guesses at the current one."""
        row = await users.with_password(user=viewer.user)
        if row is None:
            raise Unauthenticated("Sign in first.")
        async with limits.guess(email=row["email"], user=row["_id"], address=address):
            right, _ = await self._passwords.check(current, row["password_hash"])
            if not right:
                raise BadInput.at("current_password", "This is not your current password.")
        if wrong := rules.faults(new, email=row["email"], field="new_password"):
            raise BadInput(wrong)
        if not await users.set_password(row["_id"], await self._passwords.hash(new), was=row["password_hash"]):
            raise BadInput.at("current_password", "Your password has just been changed. Sign in again.")
        await sessions.end_all(row["_id"], but=viewer.session, now=now)
        return row

    async def update(self, user: Key, values: Mapping[str, Any], *, now: datetime) -> Row:
        """Change role or state of an account. One that is deactivated is shut out at once, its keys too."""
        row = await users.update(user, values)
        if not row["active"]:
            await sessions.end_all(user, now=now)
        return row
