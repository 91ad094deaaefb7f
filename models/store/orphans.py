"""A transaction whose process died is ended by those in whose way it stands, and not by MongoDB after a minute."""

import asyncio
from datetime import datetime
from typing import Any, Final

import structlog

from models.store import database
from models.store.database import Row, Session, Stored

log = structlog.get_logger()

# Longer than a try takes; one that takes longer may have to begin again.
_LEASE_MS: Final = 5000
_RENEWED_AFTER_S: Final = 2.0
_LOOKS_EVERY_S: Final = 0.5


class OpenTransaction(Stored):
    """A session in which somebody begins transactions, and until when the last one may go on."""

    id: Any  # the session's own id, where Beanie expects an ObjectId
    until: datetime

    class Settings:
        """Where it is stored."""

        name = "open_transactions"


class Orphans:
    """Knows the sessions of its own process, and ends those of others whose time is over."""

    def __init__(self) -> None:
        self._registered: dict[bytes, float] = {}
        self._looks_at = 0.0

    async def begin(self, session: Session) -> None:
        """Note that a transaction is about to begin in a session; a write every two seconds, however many begin."""
        now = asyncio.get_running_loop().time()
        key = bytes(session.session_id["id"])
        if now - self._registered.get(key, -_RENEWED_AFTER_S) < _RENEWED_AFTER_S:
            return
        until: list[Row] = [{"$set": {"until": {"$add": ["$$NOW", _LEASE_MS]}}}]
        await database.quick(OpenTransaction).update_one({"_id": session.session_id["id"]}, until, upsert=True)
        self._registered = {each: at for each, at in self._registered.items() if now - at < _RENEWED_AFTER_S}
        self._registered[key] = now

    async def end(self) -> None:
        """End the transactions of those who have not been heard of lately.

        Somebody who lives after all is harmed no more than by a write conflict: the transaction begins again.
        """
        now = asyncio.get_running_loop().time()
        if now < self._looks_at:
            return
        self._looks_at = now + _LOOKS_EVERY_S
        rows = database.quick(OpenTransaction)
        found = [row async for row in rows.find({"$expr": {"$lt": ["$until", "$$NOW"]}})]
        if found:
            log.warning("transactions: ended what was begun and left", sessions=len(found))
            await rows.database.client.admin.command({"killSessions": [{"id": row["_id"]} for row in found]})
            for row in found:
                await rows.delete_one(row)
