"""Messages written with the change that causes them, so that neither exists without the other."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, ClassVar

from beanie import Document

from models.enums import DescribedEnum
from models.store import database
from models.store.database import ASCENDING, IndexModel, Session


class DeliveryState(DescribedEnum):
    """How far a message has come."""

    PENDING = "PENDING", "Waits to be sent, or to be tried again."


class OutboxItem(Document):
    """One message on its way out."""

    id: str  # type: ignore[assignment]  # the message's own key: a receiver can tell a repeat by it
    kind: str
    payload: dict[str, Any]
    state: DeliveryState = DeliveryState.PENDING
    due: datetime
    tries: int = 0
    created_at: datetime

    class Settings:
        """Where it is stored."""

        name = "outbox"
        indexes: ClassVar[list[IndexModel]] = [IndexModel([("state", ASCENDING), ("due", ASCENDING)], name="due")]


@dataclass(frozen=True, slots=True)
class Message:
    """What is to be sent: `key` stays the same for every try, `kind` says by whom it is delivered."""

    key: str
    kind: str
    payload: Mapping[str, Any]


async def put(messages: Sequence[Message], *, now: datetime, session: Session) -> None:
    """Write messages into the transaction of the change that causes them."""
    if messages:
        await database.collection(OutboxItem).insert_many(
            [
                {
                    "_id": message.key,
                    "kind": message.kind,
                    "payload": dict(message.payload),
                    "state": DeliveryState.PENDING.value,
                    "due": now,
                    "tries": 0,
                    "created_at": now,
                }
                for message in messages
            ],
            session=session,
        )
