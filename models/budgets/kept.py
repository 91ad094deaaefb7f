"""Budgets and reservations as stored: one small document for each budget, one for each reservation ever made."""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, ClassVar, Final, Self

from models.enums import DescribedEnum
from models.errors import NotFound
from models.store import database, pages
from models.store.database import ASCENDING, DESCENDING, IndexModel, Key, Row, Session, Stored
from models.store.pages import Order, Page, Window


class ScopeKind(DescribedEnum):
    """What a budget is for."""

    THREAD = "THREAD", "A conversation of agents."


class ReservationStatus(DescribedEnum):
    """How far a reservation has come."""

    OPEN = "OPEN", "Its tokens are held."
    SETTLED = "SETTLED", "What was really spent is counted, the rest given back."
    EXPIRED = "EXPIRED", "Nobody settled it in time: its tokens were given back. It may still be settled."


@dataclass(frozen=True, slots=True)
class Scope:
    """What one budget is for: a kind, and which of that kind."""

    kind: ScopeKind
    key: str

    @property
    def id(self) -> str:
        """The key of its budget."""
        return f"{self.kind.value}:{self.key}"

    @classmethod
    def thread(cls, thread: Key) -> Self:
        """Give the scope of a thread."""
        return cls(ScopeKind.THREAD, str(thread))

    @classmethod
    def of(cls, budget: Row) -> Self:
        """Give a budget's scope."""
        return cls(ScopeKind[budget["kind"]], budget["key"])


class Budget(Stored):
    """One budget. Its document stays small: `holds` are the open reservations, of which there may be so many at once.

    Limit, spent and held stand together, so that no two figures can ever say different things.
    """

    id: str  # type: ignore[assignment]  # kind and key of its scope
    kind: ScopeKind
    key: str
    limit: int
    prompt_tokens: int = 0
    completion_tokens: int = 0
    percent: float = 0.0
    holds: list[dict[str, Any]] = []
    unsettled: int = 0
    unsettled_tokens: int = 0
    settled_late: int = 0
    told: list[int] = []
    agent: Key | None = None
    closed_at: datetime | None = None
    revision: int = 0

    class Settings:
        """Where it is stored, with an index for the order in which budgets are listed."""

        name = "budgets"
        indexes: ClassVar[list[IndexModel]] = [
            IndexModel([("kind", ASCENDING), ("percent", DESCENDING), ("_id", DESCENDING)], name="hottest")
        ]


class Reservation(Stored):
    """One reservation, kept as long as figures are: the proof of what was counted for it, whatever comes late.

    `settled` is what its holder said was spent, `reported` what usage events say; the larger one counts.
    """

    budget: str
    tokens: int
    agent: Key | None = None
    created_at: datetime
    expires_at: datetime
    settled: dict[str, int] | None = None
    reported: dict[str, int] | None = None
    settled_at: datetime | None = None
    late: bool = False

    class Settings:
        """Where it is stored. No index beside the key: nothing but `rebuild` reads them otherwise, and it reads all."""

        name = "reservations"


HOTTEST: Final = Order("percent", descending=True)

# Which holds have expired is for the database's clock to say.
_ENDED: Final = {"$filter": {"input": "$holds", "cond": {"$lte": ["$$this.expires_at", "$$NOW"]}}}
_OPEN: Final = {"$filter": {"input": "$holds", "cond": {"$gt": ["$$this.expires_at", "$$NOW"]}}}
_SHOWN: Final = {
    **dict.fromkeys(
        ("kind", "key", "limit", "prompt_tokens", "completion_tokens", "percent", "settled_late", "closed_at"), 1
    ),
    "reserved": {"$sum": {"$map": {"input": _OPEN, "in": "$$this.tokens"}}},
    "unsettled": {"$add": ["$unsettled", {"$size": _ENDED}]},
    "unsettled_tokens": {"$add": ["$unsettled_tokens", {"$sum": {"$map": {"input": _ENDED, "in": "$$this.tokens"}}}]},
}
_RESERVATION: Final = {
    **dict.fromkeys(("budget", "tokens", "agent", "created_at", "expires_at", "settled", "reported"), 1),
    **dict.fromkeys(("settled_at", "late"), 1),
    "now": "$$NOW",
}

# ---------------------------------------------------------------- reads


async def find(scope: Scope, *, session: Session | None = None) -> Row | None:
    """Find the budget of a scope."""
    return await database.collection(Budget).find_one({"_id": scope.id}, _SHOWN, session=session)


async def require(scope: Scope, *, session: Session | None = None) -> Row:
    """Find the budget of a scope. Raises `NotFound`."""
    row = await find(scope, session=session)
    if row is None:
        raise unknown(scope)
    return row


async def by_ids(ids: Sequence[str]) -> Mapping[str, Row]:
    """Find many by the keys of their scopes."""
    return {row["_id"]: row async for row in database.collection(Budget).find({"_id": {"$in": list(ids)}}, _SHOWN)}


async def page(kind: ScopeKind, *, window: Window) -> Page:
    """Read one page of budgets, those first of which most is used."""
    where = {"kind": kind.value}
    return await pages.read(database.collection(Budget), where, order=HOTTEST, window=window, projection=_SHOWN)


async def count(kind: ScopeKind) -> int:
    """Count budgets."""
    return await database.collection(Budget).count_documents({"kind": kind.value})


async def reservations(keys: Sequence[Key]) -> Mapping[Key, Row]:
    """Find many reservations at once."""
    rows = database.collection(Reservation).find({"_id": {"$in": list(keys)}}, _RESERVATION)
    return {row["_id"]: row async for row in rows}


# ---------------------------------------------------------------- writes


async def open(  # noqa: A001  # read as `kept.open`
    scope: Scope, limit: int, *, session: Session
) -> None:
    """Open the budget of a scope, in the transaction that makes what it is for; one that is open stays as it is."""
    budget = Budget(id=scope.id, kind=scope.kind, key=scope.key, limit=limit)
    born = {**budget.model_dump(exclude={"id", "revision_id"}), "kind": scope.kind.value}
    await database.collection(Budget).update_one(
        {"_id": scope.id}, {"$setOnInsert": born}, upsert=True, session=session
    )


async def close(scope: Scope, *, session: Session) -> None:
    """Have a budget refuse every reservation from now on; what is open may still be settled."""
    await database.collection(Budget).update_one(
        {"_id": scope.id, "closed_at": None},
        [{"$set": {"closed_at": "$$NOW", "revision": {"$add": ["$revision", 1]}}}],
        session=session,
    )


# ---------------------------------------------------------------- rules


def spent(budget: Row) -> int:
    """Give what has been spent of a budget."""
    total: int = budget["prompt_tokens"] + budget["completion_tokens"]
    return total


def status(reservation: Row) -> ReservationStatus:
    """Say how far a reservation had come when it was read."""
    if reservation["settled_at"] is not None:
        return ReservationStatus.SETTLED
    return ReservationStatus.EXPIRED if reservation["expires_at"] <= reservation["now"] else ReservationStatus.OPEN


def reservation_key(scope: Scope, idempotency_key: str) -> Key:
    """Make the key of a reservation of the key that its caller gave it: 96 bits of a digest."""
    said = f"{scope.id}\x1f{idempotency_key}".encode("utf-8", "surrogatepass")
    return Key(hashlib.blake2b(said, digest_size=12, person=b"reservations").digest())


def thread_of(budget: str) -> Key | None:
    """Give the thread that a budget is for; None when it is for something else."""
    kind, _, key = budget.partition(":")
    return Key(key) if kind == ScopeKind.THREAD.value else None


def unknown_reservation() -> NotFound:
    """Say that there is no such reservation."""
    return NotFound("There is no such reservation.", field="reservation")


def unknown(scope: Scope) -> NotFound:
    """Say that there is no such budget."""
    return NotFound(f"There is no such {scope.kind.lower()}.", field=scope.kind.lower())
