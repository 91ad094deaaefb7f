"""One event as stored, and what an event may not say."""

import hashlib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any, Final

import orjson

from models import agents, text
from models.budgets.accounts import MOST_TOKENS
from models.enums import DescribedEnum
from models.errors import BadInput
from models.store import database
from models.store.database import Key, Row, Stored

EARLIEST: Final = datetime(2000, 1, 1, tzinfo=UTC)
AHEAD: Final = timedelta(hours=24)
MOST_LATENCY_MS: Final = 7 * 24 * 3600 * 1000
MOST_COST: Final = Decimal(1_000_000)
LARGEST_BATCH: Final = 1000
UNNAMED_MODEL: Final = ""
"""What an event without a model is filed under."""

_UNFIT: Final = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")


class UsageEvent(Stored):
    """One call of a model, as a service reported it; never changed.

    The key is source and idempotency key together, so that the event and the proof that it was counted are one
    document: neither can be stored without the other.
    """

    id: str  # type: ignore[assignment]  # source and idempotency key
    agent: Key
    at: datetime
    model: str
    provider: str | None = None
    labels: dict[str, str] | None = None
    prompt_tokens: int
    completion_tokens: int
    cached_tokens: int = 0
    cache_write_tokens: int = 0
    reasoning_tokens: int = 0
    messages: int
    cost_nanodollars: int | None = None
    price: Key | None = None
    latency_ms: int | None = None
    conversation: str | None = None
    user: str | None = None
    thread: str | None = None
    parent: str | None = None
    budget: str | None = None
    reservation: Key | None = None
    content: bytes
    commit: Key
    reset: int | None = None

    class Settings:
        """Where it is stored. No index beside the key: nothing but `rebuild` reads events, and it reads them all."""

        name = "usage_events"


class CostSource(DescribedEnum):
    """Where the cost of an event comes from."""

    REPORTED = "REPORTED", "Whoever reported the event said it."
    TABLE = "TABLE", "Calculated from the price table, since nobody said it."
    UNKNOWN = "UNKNOWN", "Nobody said it and the table had no price: it counts in `unpricedEvents`, and in no cost."


class ItemOutcome(DescribedEnum):
    """What became of one item of a batch."""

    ACCEPTED = "ACCEPTED", "Stored and counted."
    DUPLICATE = (
        "DUPLICATE",
        "Stored and counted before: nothing changed. Its code is CONTENT_DIFFERS when it now says something else.",
    )
    REJECTED = (
        "REJECTED",
        "Not stored: `code`, `field` and `message` say why. The rest of the batch is not affected.",
    )


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of one item, and for a refusal why."""

    outcome: ItemOutcome
    code: str | None = None
    message: str | None = None
    field: str | None = None


async def find(source: str, identifier: str) -> Row | None:
    """Find one event by the system that reported it and its id there."""
    return await database.collection(UsageEvent).find_one({"_id": key_of(source, identifier)})


def cost_source(row: Row) -> CostSource:
    """Say where the cost of a stored event comes from."""
    if row.get("price") is not None:
        return CostSource.TABLE
    return CostSource.UNKNOWN if row.get("cost_nanodollars") is None else CostSource.REPORTED


ACCEPTED: Final = Outcome(ItemOutcome.ACCEPTED)
DUPLICATE: Final = Outcome(ItemOutcome.DUPLICATE)
CONTENT_DIFFERS: Final = Outcome(
    ItemOutcome.DUPLICATE,
    "CONTENT_DIFFERS",
    "An event with this id and source was counted before, and it said something else. The first one counts.",
)


def rejected(field: str, message: str, *, code: str = "BAD_USER_INPUT") -> Outcome:
    """Refuse one item, naming its field in snake_case."""
    return Outcome(ItemOutcome.REJECTED, code, message, field)


def tallied(outcomes: Sequence[Outcome]) -> Mapping[ItemOutcome, int]:
    """Count outcomes by kind."""
    return {kind: sum(each.outcome is kind for each in outcomes) for kind in ItemOutcome}


@dataclass(kw_only=True)
class Event:
    """One event as reported. Counts are inclusive, as OpenTelemetry's: prompt holds cached, completion reasoning.

    Not frozen: that makes one take three times as long, and there are a thousand in a request.
    """

    source: str
    id: str
    agent: agents.Ref
    at: datetime | None = None
    model: str | None = None
    provider: str | None = None
    labels: Mapping[str, str] | None = None
    prompt_tokens: int = 0
    completion_tokens: int = 0
    cached_tokens: int | None = None
    cache_write_tokens: int | None = None
    reasoning_tokens: int | None = None
    messages: int = 1
    cost: Decimal | None = None
    latency_ms: int | None = None
    conversation: str | None = None
    user: str | None = None
    thread: str | None = None
    parent: str | None = None
    budget: str | None = None
    """The budget that it counts against, should there be one: that of the thread that `thread` may name."""
    reservation: Key | None = None
    key: str = field(init=False)
    """Source and idempotency key."""

    def __post_init__(self) -> None:
        """Put the key together, once."""
        self.key = key_of(self.source, self.id)

    @classmethod
    def of(cls, values: dict[str, Any]) -> "Event":
        """Make one of all its values by name, which become its own: in a third of the constructor's time."""
        event = cls.__new__(cls)
        event.__dict__ = values
        event.__post_init__()
        return event

    def content(self) -> bytes:
        """Digest what the event says, so that a repeat that says something else is noticed (16 bytes)."""
        # As it is kept: 0.1 and 0.10 are the same.
        cost = None if self.cost is None else nanodollars(self.cost)
        said = (
            self.agent, self.at, self.model, self.provider, sorted(self.labels.items()) if self.labels else None,
            self.prompt_tokens, self.completion_tokens, self.cached_tokens, self.cache_write_tokens,
            self.reasoning_tokens, self.messages, cost, self.latency_ms, self.conversation, self.user,
            self.thread, self.parent, self.reservation,
        )  # fmt: skip
        return hashlib.blake2b(orjson.dumps(said, default=str), digest_size=16).digest()

    def row(self, agent: Key, *, now: datetime, commit: Key) -> dict[str, Any]:
        """Write the event as stored; what is not known is left out."""
        row: dict[str, Any] = {
            "_id": self.key,
            "agent": agent,
            "at": self.at or now,
            "model": self.model or UNNAMED_MODEL,
            "prompt_tokens": self.prompt_tokens,
            "completion_tokens": self.completion_tokens,
            "messages": self.messages,
            "content": self.content(),
            "commit": commit,
        }
        for name in _SELDOM:
            value = getattr(self, name)
            if value is not None and value != "":
                row[name] = value
        if self.labels:
            row["labels"] = dict(self.labels)
        if self.cost is not None:
            row["cost_nanodollars"] = nanodollars(self.cost)
        return row


_SELDOM: Final = (
    "cached_tokens",
    "cache_write_tokens",
    "reasoning_tokens",
    "latency_ms",
    "provider",
    "conversation",
    "user",
    "thread",
    "parent",
    "budget",
    "reservation",
)


def key_of(source: str, identifier: str) -> str:
    """Make the key of an event; the separator can stand in neither part."""
    return f"{source}\x1f{identifier}"


def check_source(source: str) -> None:
    """Check the name of the reporting system. Raises `BadInput`."""
    if not 1 <= len(source) <= _LABEL or _UNFIT.search(source):
        raise BadInput.at("source", f"A source has 1 to {_LABEL} characters and no control characters.")


def check_size(count: int, *, field: str = "events") -> None:
    """Check how many items come at once. Raises `BadInput`."""
    if not 1 <= count <= LARGEST_BATCH:
        raise BadInput.at(field, f"Report 1 to {LARGEST_BATCH} at once.")


def nanodollars(usd: Decimal) -> int:
    """Turn US dollars into whole nanodollars, the last half rounded to even."""
    return round(usd.scaleb(9))


def fault(event: Event, *, now: datetime) -> Outcome | None:
    """Say what is wrong with an event, or None."""
    return _fault_of_id(event) or _fault_of_texts(event) or _fault_of_counts(event) or _fault_of_time(event, now)


_TEXTS: Final[Mapping[str, int]] = {
    "id": 200,
    "model": 200,
    "provider": 100,
    "conversation": 200,
    "user": 200,
    "thread": 200,
    "parent": 200,
}
_SHORT: Final = min(_TEXTS.values())
_NAME: Final = 200
_LABELS: Final = 10
_LABEL: Final = 64


def _fault_of_id(event: Event) -> Outcome | None:
    if event.id:
        return None
    return rejected("id", "An event needs an id: the same value for every retry of the same event.")


def _is_plain(event: Event) -> bool:
    """Whether all that an event says in words is short and fit: nearly always, and one look tells."""
    said = (event.id, event.model, event.provider, event.conversation, event.user, event.thread, event.parent)
    together = "".join(filter(None, said))
    return isinstance(event.agent, Key) and not event.labels and len(together) <= _SHORT and not _UNFIT.search(together)


def _fault_of_texts(event: Event) -> Outcome | None:
    if _is_plain(event):
        return None
    said = (event.id, event.model, event.provider, event.conversation, event.user, event.thread, event.parent)
    texts = [(field, value, most) for (field, most), value in zip(_TEXTS.items(), said, strict=True) if value]
    if isinstance(event.agent, str):
        if text.is_blank(event.agent):
            return rejected("agent.name", "A name cannot be empty.")
        texts.append(("agent.name", event.agent, _NAME))
    for key, value in (event.labels or {}).items():
        texts += [("labels", key, _LABEL), ("labels", value, _LABEL)]
    for name, value, most in texts:
        if value and len(value) > most:
            return rejected(name, f"At most {most} characters.")
        if value and _UNFIT.search(value):
            return rejected(name, "No control characters, line breaks or broken Unicode.")
    if len(event.labels or {}) > _LABELS:
        return rejected("labels", f"At most {_LABELS} labels.")
    return None


_COUNTS: Final = (
    "prompt_tokens",
    "completion_tokens",
    "messages",
    "cached_tokens",
    "cache_write_tokens",
    "reasoning_tokens",
)


def _fault_of_counts(event: Event) -> Outcome | None:
    for name in _COUNTS:
        value = getattr(event, name)
        if value is not None and not 0 <= value <= MOST_TOKENS:
            return rejected(name, f"A count lies between 0 and {MOST_TOKENS}.")
    if (event.cached_tokens or 0) + (event.cache_write_tokens or 0) > event.prompt_tokens:
        field = "cached_tokens" if (event.cached_tokens or 0) > event.prompt_tokens else "cache_write_tokens"
        return rejected(
            field,
            "Cached and cache-write tokens are parts of the prompt tokens here, as in OpenTelemetry. Anthropic's API "
            "counts them apart: report promptTokens as input_tokens + cache_read_input_tokens + "
            "cache_creation_input_tokens.",
        )
    if (event.reasoning_tokens or 0) > event.completion_tokens:
        return rejected("reasoning_tokens", "Reasoning tokens are a part of the completion tokens.")
    if event.latency_ms is not None and not 0 <= event.latency_ms <= MOST_LATENCY_MS:
        return rejected("latency_ms", f"A latency lies between 0 and {MOST_LATENCY_MS} ms.")
    if event.cost is not None and not 0 <= event.cost <= MOST_COST:
        return rejected("cost", f"A cost lies between 0 and {MOST_COST} US dollars.")
    return None


def _fault_of_time(event: Event, now: datetime) -> Outcome | None:
    if event.at is None or EARLIEST <= event.at <= now + AHEAD:
        return None
    return rejected("at", f"A time lies between {EARLIEST:%Y-%m-%d} and 24 hours from now.")
