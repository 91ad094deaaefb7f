"""Budgets of tokens and reservations as clients see and change them."""

from datetime import datetime
from typing import TYPE_CHECKING, Annotated, ClassVar

import strawberry
from strawberry import ID, Private

import graph.threads
from auth.permissions import Permission, readers
from graph.context import Context, Info
from graph.language import nodes
from graph.language.describe import field, input_type, object_type
from graph.language.enums import expose
from graph.language.nodes import Node, key_of
from graph.language.rows import reader
from graph.language.scalars import BigInt
from models.budgets import kept, ledger
from models.budgets.kept import Scope
from models.store.database import Key, Row
from models.threads import conversations

if TYPE_CHECKING:
    from graph.agents import AgentBy
    from graph.threads import Thread

ReservationStatus = expose(kept.ReservationStatus)


@object_type
class ThreadBudget:
    """How many tokens may be spent in a thread, and how many have been: by usage events and settled reservations."""

    row: Private[Row]
    max_tokens: BigInt
    """The limit."""
    prompt_tokens: BigInt
    """Prompt tokens spent."""
    completion_tokens: BigInt
    """Completion tokens spent."""
    total_tokens: BigInt
    """All tokens spent. It passes the limit when a call took more than was reserved for it, or reserved nothing."""
    reserved_tokens: BigInt
    """Tokens held for calls that are under way."""
    remaining: BigInt
    """Tokens that can still be reserved: what is neither spent nor held; never below 0."""
    percent_used: float
    """What is spent, in percent of the limit; above 100 when it is passed."""
    exhausted: bool
    """Whether as much is spent as there is. The thread is EXHAUSTED then, until the limit is raised."""
    unsettled_reservations: BigInt
    """Reservations that expired and were never settled: what was spent of them is not known."""
    unsettled_tokens: BigInt
    """Tokens that these reservations held and that were given back."""
    late_settlements: BigInt
    """Reservations that were settled after they had expired; what was spent counts all the same."""

    @field
    async def thread(self, info: Info) -> Annotated["Thread", strawberry.lazy("graph.threads")]:
        """Give the thread."""
        return graph.threads.Thread.of(await info.context.load(conversations.by_keys, Key(self.row["key"])))

    @classmethod
    def of(cls, row: Row) -> "ThreadBudget":
        """Shape a stored budget."""
        return _budget(row)


_budget = reader(
    ThreadBudget,
    max_tokens=lambda row: row["limit"],
    total_tokens=kept.spent,
    reserved_tokens=lambda row: row["reserved"],
    remaining=lambda row: max(row["limit"] - kept.spent(row) - row["reserved"], 0),
    percent_used=lambda row: row["percent"],
    exhausted=lambda row: kept.spent(row) >= row["limit"],
    unsettled_reservations=lambda row: row["unsettled"],
    late_settlements=lambda row: row["settled_late"],
)


@object_type
class Reservation(Node):
    """Tokens of a budget that are held for one call of a model, or for several."""

    readable_by: ClassVar[Permission] = readers

    row: Private[Row]
    tokens: BigInt
    """How many were asked for."""
    created_at: datetime
    """When it was made, by the database's clock."""
    expires_at: datetime
    """Until when they are held, by the database's clock, unless it is settled or extended before."""
    status: ReservationStatus  # type: ignore[valid-type]  # mypy takes an exposed enum for a variable
    """How far it has come."""
    settled_at: datetime | None
    """When it was first said what was spent; null until then."""
    late: bool
    """Whether that was after it had expired."""

    @field
    async def budget(self, info: Info) -> ThreadBudget:
        """Give the budget that it is part of."""
        return ThreadBudget.of(await info.context.load(kept.by_ids, self.row["budget"]))

    @classmethod
    def of(cls, row: Row) -> "Reservation":
        """Shape a stored reservation."""
        return _reservation(row)

    @classmethod
    async def find_node(cls, context: Context, key: str) -> "Reservation | None":
        """Find one by its key."""
        row = await context.find(kept.reservations, key_of(key))
        return cls.of(row) if row and await _may_use(context, kept.thread_of(row["budget"])) else None


_reservation = reader(Reservation, status=kept.status)


async def scope_of(context: Context, thread: str) -> Scope:
    """Give the scope of a thread; an agent's key uses those that it takes part in. Raises `BadInput`, `NotFound`."""
    key = nodes.decode(thread, "Thread", field="thread")
    if not await _may_use(context, key):
        raise kept.unknown(Scope.thread(key))
    return Scope.thread(key)


async def reservation_of(context: Context, reservation: str) -> Key:
    """Give the key of a reservation; an agent's key uses those of threads that it takes part in.

    Raises `BadInput`, `NotFound`.
    """
    key = nodes.decode(reservation, "Reservation", field="reservation")
    row = await context.find(kept.reservations, key)
    if row is None or not await _may_use(context, kept.thread_of(row["budget"])):
        raise kept.unknown_reservation()
    return key


async def _may_use(context: Context, thread: Key | None) -> bool:
    if context.viewer.agent is None:
        return True
    row = await context.find(conversations.by_keys, thread)
    return row is not None and graph.threads.may_read(context, row["participants"])


# ---------------------------------------------------------------- reserveTokens


@input_type
class ReserveTokensInput:
    """Tokens to hold before a model is called: those of the prompt and the most that the answer may have."""

    thread: ID
    """The thread whose budget they come from."""
    tokens: BigInt
    """How many, 1 to 1,000,000,000,000."""
    idempotency_key: ID
    """Yours, 1 to 200 characters: the same for every try of the same reservation; one key of a thread holds once."""
    lease_seconds: int = ledger.LEASE_S
    """How long they are held, 1 to 3,600 seconds: longer than the call may take."""
    agent: Annotated["AgentBy", strawberry.lazy("graph.agents")] | None = None
    """Whose call it is: named in alerts about this budget. An agent's key speaks for its own agent."""


@object_type
class ReserveTokensPayload:
    """What is held."""

    reservation: Reservation
    """The reservation, as it stands: a key that was used before gives the reservation that it made then."""
    budget: ThreadBudget
    """The budget, with it."""


# ---------------------------------------------------------------- settleTokens


@input_type
class SettleTokensInput:
    """What a call has really spent; 0 of both, when it was not made, gives everything back."""

    reservation: ID
    """Which reservation."""
    prompt_tokens: BigInt = BigInt(0)
    """Prompt tokens spent, 0 to 1,000,000,000,000."""
    completion_tokens: BigInt = BigInt(0)
    """Completion tokens spent, 0 to 1,000,000,000,000."""


@object_type
class SettleTokensPayload:
    """What came of it."""

    budget: ThreadBudget
    """The budget: what was spent counts, the rest is free again."""
    reservation: Reservation
    """The reservation."""


# ---------------------------------------------------------------- extendReservation


@input_type
class ExtendReservationInput:
    """More time for a call that takes long."""

    reservation: ID
    """Which reservation; it must be OPEN."""
    lease_seconds: int = ledger.LEASE_S
    """How long it is held from now on, 1 to 3,600 seconds."""


@object_type
class ExtendReservationPayload:
    """The reservation, held for longer."""

    reservation: Reservation
    """The reservation."""
    budget: ThreadBudget
    """The budget that it is part of."""


# ---------------------------------------------------------------- setThreadBudget


@input_type
class SetThreadBudgetInput:
    """A limit for a thread. A higher one reopens a thread that is EXHAUSTED."""

    thread: ID
    """Which thread."""
    max_tokens: BigInt
    """How many tokens may be spent in it in all, 1 to 1,000,000,000,000; fewer than are spent already exhaust it."""


@object_type
class SetThreadBudgetPayload:
    """The budget, with its new limit."""

    budget: ThreadBudget
    """The budget."""
