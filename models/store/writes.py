"""Many documents written inside a transaction, with one bare command for as many as fit.

The driver's bulk writes look at each document several times (measured for 700 inserts: 1.9 ms against 1.3, for 20
updates 0.50 against 0.40); what is written here has been made by ourselves.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Final

from beanie import Document

from models.store import database
from models.store.database import BulkWriteError, Session

# No document written here is larger than 12 kB, and a command takes 16 MB.
_AT_ONCE: Final = 1000


async def insert(document: type[Document], rows: Sequence[Mapping[str, Any]], *, session: Session) -> None:
    """Insert rows. Raises `DatabaseError`; `is_duplicate` says whether one is there already."""
    for some in _parts(rows):
        await _run(document, {"insert": "", "documents": some}, session=session)


async def update(
    document: type[Document],
    changes: Sequence[tuple[Mapping[str, Any], Mapping[str, Any]]],
    *,
    upsert: bool = False,
    session: Session,
) -> int:
    """Change one document for each pair of what finds it and what is done to it; gives how many were found or made."""
    found = 0
    for some in _parts(changes):
        writes = [{"q": where, "u": change, "upsert": upsert} for where, change in some]
        found += await _run(document, {"update": "", "updates": writes}, session=session)
    return found


async def _run(document: type[Document], command: dict[str, Any], *, session: Session) -> int:
    source = database.collection(document)
    name = next(iter(command))
    answer = await source.database.command({**command, name: source.name, "ordered": False}, session=session)
    if "writeErrors" in answer:
        raise BulkWriteError(answer)
    count: int = answer["n"]
    return count


def _parts(items: Sequence[Any]) -> list[Sequence[Any]]:
    return [items[start : start + _AT_ONCE] for start in range(0, len(items), _AT_ONCE)]
