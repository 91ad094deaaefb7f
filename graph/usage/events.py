"""One usage event as clients read it back."""

from datetime import datetime
from decimal import Decimal

from strawberry import ID, Private

import graph.agents
from graph.alerts import LazyAgent
from graph.context import Info
from graph.language.describe import field, object_type
from graph.language.enums import expose
from graph.language.rows import reader
from graph.language.scalars import BigInt, as_usd
from graph.prices import Price
from models import agents
from models.prices import entries
from models.store.database import Key, Row
from models.usage import events

CostSource = expose(events.CostSource)

_ZERO = BigInt(0)


@object_type
class UsageEvent:
    """One call of a model, as it was reported and is counted."""

    agent_key: Private[Key]
    price_key: Private[Key | None]
    id: ID
    """Its idempotency key; the reporter's, not ours."""
    source: str
    """The system that reported it."""
    at: datetime
    """When it happened."""
    model: str | None
    """The model that answered; null when it was not said."""
    provider: str | None
    """Who serves the model; null when it was not said."""
    prompt_tokens: BigInt
    """Prompt tokens, cached and cache-write ones included."""
    completion_tokens: BigInt
    """Completion tokens, reasoning ones included."""
    cached_tokens: BigInt = _ZERO
    """Prompt tokens read from a cache; a part of `promptTokens`."""
    cache_write_tokens: BigInt = _ZERO
    """Prompt tokens written to a cache; a part of `promptTokens`."""
    reasoning_tokens: BigInt = _ZERO
    """Completion tokens spent on reasoning; a part of `completionTokens`."""
    messages: BigInt
    """Messages exchanged."""
    latency_ms: int | None
    """Duration of the call in milliseconds; null when it was not said."""
    conversation: ID | None
    """The conversation it belongs to; the reporter's identifier, null when it was not said."""
    user: ID | None
    """Who asked; the reporter's identifier, null when it was not said."""
    parent: ID | None
    """The id of the event that caused this one; null when it was not said."""
    cost: Decimal | None
    """What it cost in US dollars; null when that is unknown."""
    cost_source: CostSource  # type: ignore[valid-type]  # mypy takes an exposed enum for a variable
    """Where the cost comes from."""

    @field
    async def agent(self, info: Info) -> LazyAgent | None:
        """Give the agent whose usage it is; null when that has been erased."""
        row = await info.context.find(agents.by_keys, self.agent_key)
        return graph.agents.Agent.of(row) if row else None

    @field
    async def price(self, info: Info) -> Price | None:
        """Give the price it was calculated from, as that stands now; null for a cost that is not from the table."""
        row = await info.context.find(entries.by_keys, self.price_key)
        return Price.of(row) if row else None

    @classmethod
    def of(cls, row: Row) -> "UsageEvent":
        """Shape a stored event."""
        return _event(row)


def _cost(row: Row) -> Decimal | None:
    nanodollars = row.get("cost_nanodollars")
    return None if nanodollars is None else as_usd(nanodollars)


_event = reader(
    UsageEvent,
    agent_key=lambda row: row["agent"],
    price_key=lambda row: row.get("price"),
    id=lambda row: row["_id"].partition("\x1f")[2],
    source=lambda row: row["_id"].partition("\x1f")[0],
    model=lambda row: row["model"] or None,
    cost=_cost,
    cost_source=events.cost_source,
)
