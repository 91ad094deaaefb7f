"""Answers kept under the key that a client gave its request, so that sending it again does nothing twice."""

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import ClassVar, Final

from beanie import Document

from models.errors import Conflict
from models.store import database
from models.store.database import ASCENDING, DuplicateKeyError, IndexModel

KEPT: Final = timedelta(hours=24)


class KeptAnswer(Document):
    """What was answered to one request; without an answer it is still being worked on, or never came to an end."""

    id: str  # type: ignore[assignment]  # who asked, and the key they gave
    request: bytes
    created_at: datetime
    answer: bytes | None = None

    class Settings:
        """Where it is stored; gone after a day."""

        name = "kept_answers"
        indexes: ClassVar[list[IndexModel]] = [
            IndexModel([("created_at", ASCENDING)], name="expiry", expireAfterSeconds=round(KEPT.total_seconds()))
        ]


@dataclass(frozen=True, slots=True)
class Place:
    """A request's place under its key, to be filled with its answer."""

    key: str

    async def keep(self, answer: bytes) -> None:
        """Keep the answer, for a day."""
        await database.collection(KeptAnswer).update_one({"_id": self.key}, {"$set": {"answer": answer}})

    async def free(self) -> None:
        """Give the place back: nothing was done, the request may be sent again."""
        await database.collection(KeptAnswer).delete_one({"_id": self.key, "answer": None})


async def begin(key: str, *, request: bytes, now: datetime) -> Place | bytes:
    """Take the place under a key for a request (its digest); gives the answer where it has been answered already.

    Raises `Conflict` for another request under the same key, and for one whose answer is not known: it is being worked
    on, or the process that did so is gone. Such a one is never run again, since it may have taken effect.
    """
    rows = database.collection(KeptAnswer)
    try:
        await rows.insert_one({"_id": key, "request": request, "created_at": now, "answer": None})
    except DuplicateKeyError:
        row = await rows.find_one({"_id": key})
        if row is None:
            return await begin(key, request=request, now=now)
        if row["request"] != request:
            raise Conflict("This Idempotency-Key came with another request before. Use a new one.") from None
        if row["answer"] is None:
            raise Conflict(
                "The first request with this Idempotency-Key has not been answered yet. Try again soon; should it stay "
                "so, look whether it took effect before you send it with a new key."
            ) from None
        answer: bytes = row["answer"]
        return answer
    return Place(key)
