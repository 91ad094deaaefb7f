"""Changes to what is stored already, each made once, by whichever process starts first."""

from collections.abc import Awaitable, Callable
from datetime import datetime

from beanie import Document

from models.store import database
from models.store.database import Session


class Migration(Document):
    """The record that a migration has run."""

    id: str  # type: ignore[assignment]  # its name
    ran_at: datetime

    class Settings:
        """Where it is stored."""

        name = "migrations"


async def once(name: str, body: Callable[[Session], Awaitable[None]], *, now: datetime) -> None:
    """Run a migration unless it is recorded that it ran. Change and record are one transaction."""

    async def run(session: Session) -> None:
        rows = database.collection(Migration)
        if await rows.find_one({"_id": name}, session=session) is None:
            # Recorded first: of two processes that start together, the second conflicts here, and finds it done.
            await rows.insert_one({"_id": name, "ran_at": now}, session=session)
            await body(session)

    await database.transaction(Migration, run, retry_duplicates=True)
