"""Numbers whose order is the order of commit."""

from beanie import Document

from models.store import database
from models.store.database import Session


class Sequence(Document):
    """The last number given out under one name.

    Incremented inside the transaction that uses the number: a second transaction waits or is tried again, so no
    number becomes visible after a higher one, and a reader that has seen `n` has seen all below it.
    """

    id: str  # type: ignore[assignment]  # the name, where Beanie expects an ObjectId
    value: int = 0

    class Settings:
        """Where it is stored."""

        name = "sequences"


async def take(name: str, count: int, *, session: Session) -> range:
    """Take the next `count` numbers, the first of all being 1."""
    row = await database.change_and_read(
        database.collection(Sequence),
        {"_id": name},
        {"$inc": {"value": count}},
        upsert=True,
        session=session,
    )
    return range(row["value"] - count + 1, row["value"] + 1)
