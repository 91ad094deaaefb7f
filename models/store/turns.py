"""One at a time, for those who have lost too often: among many processes that change the same documents.

A transaction that meets a write conflict starts again at once. Of two processes each wins often enough; of four, one
that commits without a break can keep another out for seconds (measured: 190 conflicts in a row, a deadline of 10 s
passed). Who has lost a few times therefore takes a turn, and who commits without a break looks now and then whether
somebody waits, and then waits for a turn too.
"""

import asyncio
import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import Final

from models.store import database
from models.store.database import DuplicateKeyError, Key, Row, Stored

# Who dies with it is passed over, as soon as what they had begun is out of the way: whoever is alive asks for it again
# before each try. That two have it is no harm, but for their speed.
_LEASE_MS: Final = 3000
_RENEWED_AFTER_S: Final = 1.0
_PAUSE_S: Final = 0.004


class Turn(Stored):
    """Whose turn it is."""

    id: str  # type: ignore[assignment]  # at what
    holder: Key
    until: datetime

    class Settings:
        """Where it is stored."""

        name = "turns"


class Waiting:
    """One who may come to need a turn."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._me = Key()
        self._holds = False
        self._renewed_at = 0.0

    async def take(self) -> None:
        """Wait for the turn; who has it goes on."""
        loop = asyncio.get_running_loop()
        if self._holds and loop.time() - self._renewed_at < _RENEWED_AFTER_S:
            return
        self._holds = False
        while not self._holds:
            self._holds = await self._try()
            if not self._holds:
                await asyncio.sleep(random.uniform(0, 2 * _PAUSE_S))  # noqa: S311  # others hold it elsewhere
        self._renewed_at = loop.time()

    async def give_back(self) -> None:
        """Let the next have it."""
        if self._holds:
            self._holds = False
            await database.quick(Turn).delete_one({"_id": self._name, "holder": self._me})

    async def _try(self) -> bool:
        is_free = {"$lt": [{"$ifNull": ["$until", datetime.fromtimestamp(0, UTC)]}, "$$NOW"]}
        change: list[Row] = [
            {"$set": {"holder": {"$cond": [is_free, self._me, "$holder"]}}},
            {"$set": {"until": {"$cond": [{"$eq": ["$holder", self._me]}, {"$add": ["$$NOW", _LEASE_MS]}, "$until"]}}},
        ]
        try:
            row = await database.change_and_read(database.quick(Turn), {"_id": self._name}, change, upsert=True)
        except DuplicateKeyError:
            # Made by somebody else at the same moment.
            return False
        return bool(row["holder"] == self._me)


async def is_taken(name: str) -> bool:
    """Whether somebody has the turn at something."""
    return await database.quick(Turn).find_one({"_id": name}, {"_id": 1}) is not None


@asynccontextmanager
async def waiting(name: str) -> AsyncIterator[Waiting]:
    """Be ready to take a turn at something, and give it back at the end."""
    one = Waiting(name)
    try:
        yield one
    finally:
        await one.give_back()
