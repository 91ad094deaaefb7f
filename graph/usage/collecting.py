"""Usage as services report it: events one by one, or an agent as a whole."""

from collections.abc import Sequence
from contextlib import suppress
from datetime import date, datetime
from decimal import Decimal
from typing import TYPE_CHECKING, Annotated, Final, Self

import strawberry
from prometheus_client import Counter
from strawberry import ID

from graph.alerts import Discipline
from graph.language import nodes
from graph.language.describe import input_type, object_type
from graph.language.enums import expose
from graph.language.errors import spell
from graph.language.scalars import BigInt
from models import agents
from models.budgets.kept import Scope
from models.errors import BadInput
from models.threads import conversations
from models.usage import events
from models.usage.events import Event, Outcome
from models.usage.snapshots import Day, Snapshot

if TYPE_CHECKING:
    from graph.agents import AgentBy

ItemOutcome = expose(events.ItemOutcome)

_ITEMS: Final = Counter("agenthub_usage_items", "Reported events, snapshots and runs, by outcome.", ["kind", "outcome"])


# ---------------------------------------------------------------- collectUsage


@input_type
class LabelInput:
    """A label of your own on an event."""

    key: str
    """1 to 64 characters."""
    value: str
    """1 to 64 characters."""


@input_type
class UsageEventInput:
    """One call of a model (one attempt). Token counts are inclusive, as OpenTelemetry's GenAI conventions count."""

    id: ID
    """Idempotency key, yours: the same value for every retry of the same event. Kept as long as the figures are."""
    agent: Annotated["AgentBy", strawberry.lazy("graph.agents")]
    """Whose usage it is. An unknown name is registered; an unknown id refuses the event."""
    at: datetime | None = None
    """When it happened; now, when left out. At most 24 hours ahead."""
    model: str | None = None
    """The model that answered; the price table goes by the beginning of its name."""
    provider: str | None = None
    """Who serves the model."""
    labels: list[LabelInput] | None = None
    """At most 10 labels."""
    prompt_tokens: BigInt = BigInt(0)
    """Prompt tokens, cached and cache-write ones included (`gen_ai.usage.input_tokens`). Anthropic's API counts them
    apart: add its `input_tokens`, `cache_read_input_tokens` and `cache_creation_input_tokens`."""
    completion_tokens: BigInt = BigInt(0)
    """Completion tokens, reasoning ones included (`gen_ai.usage.output_tokens`). Google's API counts them apart: add
    its `candidatesTokenCount` and `thoughtsTokenCount`."""
    messages: BigInt = BigInt(1)
    """Messages exchanged."""
    cached_tokens: BigInt | None = None
    """Prompt tokens read from a cache; a part of `promptTokens`, priced apart from the rest of it."""
    cache_write_tokens: BigInt | None = None
    """Prompt tokens written to a cache; a part of `promptTokens`, priced apart from the rest of it."""
    reasoning_tokens: BigInt | None = None
    """Completion tokens spent on reasoning; a part of `completionTokens`, priced apart where the table does so."""
    cost: Decimal | None = None
    """Cost in US dollars, 0 to 1,000,000, rounded to the nanodollar. When left out, it is calculated from the price
    table for the model, the provider and `at` (`Price` says how); without a price there it is unknown, not zero."""
    latency_ms: int | None = None
    """Duration of this call in milliseconds, retries before it not included."""
    conversation: ID | None = None
    """The conversation it belongs to; your identifier, not ours."""
    user: ID | None = None
    """Who asked; your identifier, not ours."""
    thread: ID | None = None
    """The thread it belongs to: its id, or your own name for it. Where there is such a thread, its tokens count against
    the thread's budget; else it is a note of yours."""
    reservation: ID | None = None
    """The reservation by which its tokens were held: it settles that, or adds to what is said of it. Together with
    `settleTokens` the larger of the two counts against the budget, never both. An unknown id refuses the event."""
    parent: ID | None = None
    """The id of the event that caused this one."""

    def read(self, source: str, refs: dict[str, agents.Ref], budgets: dict[str, str | None]) -> Event | Outcome:
        """Turn it into an event; an id that cannot be read refuses the event.

        `refs` are the agents' ids read so far, `budgets` those that threads stand for: a batch is about few of either.
        """
        by = self.agent
        agent = refs.get(by.id) if isinstance(by.id, str) else None
        if agent is None:
            try:
                agent = by.ref("agent")
            except BadInput as error:
                return events.rejected(error.field or "agent", error.message)
            if isinstance(by.id, str):
                refs[by.id] = agent
        labels = {label.key: label.value for label in self.labels} if self.labels else None
        # The names are the same on both sides: an event is what was said of it, and its source.
        values = {**vars(self), "source": source, "agent": agent, "labels": labels}
        if self.thread:
            if self.thread not in budgets:
                budgets[self.thread] = _budget(self.thread)
            values["budget"] = budgets[self.thread]
        if self.reservation is not None:
            try:
                values["reservation"] = nodes.decode(self.reservation, "Reservation", field="reservation")
            except BadInput as error:
                return events.rejected("reservation", error.message)
        return Event.of(values)


def _budget(thread: str) -> str | None:
    """Name the budget of the thread that has this id, or this name; whether there is one, the counting finds out."""
    with suppress(BadInput):
        return Scope.thread(nodes.decode(thread, "Thread")).id
    with suppress(BadInput):
        return Scope.thread(conversations.named(thread).thread).id
    return None


@input_type
class CollectUsageInput:
    """A batch of events from one source."""

    source: str = "default"
    """The reporting system, 1 to 64 characters. An event is known by source and id together."""
    events: list[UsageEventInput]
    """1 to 1,000 events."""

    def read(self) -> list[Event | Outcome]:
        """Turn them into events, or what refuses them."""
        refs: dict[str, agents.Ref] = {}
        budgets: dict[str, str | None] = {}
        return [event.read(self.source, refs, budgets) for event in self.events]


@object_type
class ItemResult:
    """What became of one item of a batch."""

    index: int
    """Its place in the batch, from 0."""
    outcome: ItemOutcome  # type: ignore[valid-type]  # mypy takes an exposed enum for a variable
    """What became of it."""
    code: str | None
    """Why not accepted: CONTENT_DIFFERS, BAD_USER_INPUT, NOT_FOUND, more may follow; null for a plain duplicate."""
    message: str | None
    """The reason in words, with what to do."""
    field: str | None
    """The field at fault, seen from the item."""

    @classmethod
    def of(cls, outcomes: Sequence[Outcome]) -> list[Self]:
        """List those that were not accepted."""
        return [
            cls(
                index=index,
                outcome=each.outcome,
                code=each.code,
                message=each.message,
                field=spell(each.field) if each.field else None,
            )
            for index, each in enumerate(outcomes)
            if each is not events.ACCEPTED
        ]


def counted(kind: str, outcomes: Sequence[Outcome]) -> dict[str, int]:
    """Count outcomes for a payload and for the metrics; `kind` is what was reported."""
    tally = events.tallied(outcomes)
    for outcome, count in tally.items():
        _ITEMS.labels(kind, outcome.lower()).inc(count)
    return {
        "accepted": tally[events.ItemOutcome.ACCEPTED],
        "duplicates": tally[events.ItemOutcome.DUPLICATE],
        "rejected": tally[events.ItemOutcome.REJECTED],
    }


@object_type
class CollectUsagePayload:
    """What became of a batch. Every event that is not in `items` was accepted, stored and counted."""

    accepted: int
    """Events stored and counted now."""
    duplicates: int
    """Events that had been counted before: nothing changed."""
    rejected: int
    """Events that were refused: nothing changed."""
    items: list[ItemResult]
    """Those not accepted, in order; at most as many as the batch has."""


# ---------------------------------------------------------------- collectSnapshots


@input_type
class SnapshotDayInput:
    """One day of an agent's timeline, as a whole: a later report replaces it."""

    day: date
    """The day, in the company's time zone."""
    messages: BigInt = BigInt(0)
    """Messages of the day."""
    total_tokens: BigInt | None = None
    """All tokens of the day; prompt and completion tokens together, when left out."""
    prompt_tokens: BigInt | None = None
    """Prompt tokens of the day."""
    completion_tokens: BigInt | None = None
    """Completion tokens of the day; what the total has beyond the two is counted as unsplit."""

    def read(self) -> Day:
        """Turn it into what the counting understands."""
        return Day(self.day, self.messages, self.total_tokens, self.prompt_tokens, self.completion_tokens)


@input_type
class AgentSnapshotInput:
    """What a source knows of an agent since it began to count; what is left out stays as it was reported before."""

    name: str
    """Whose usage it is. An unknown name is registered, without an owner."""
    source: str
    """The reporting system, 1 to 64 characters. Reports of one source replace one another; several sources add up."""
    reported_at: datetime
    """As of when it is true. Of two reports of a source the later one counts, whichever arrives first."""
    discipline: Discipline | None = None  # type: ignore[valid-type]  # mypy takes an exposed enum for a variable
    """The part of the company it works for; taken where nobody has said."""
    description: str | None = None
    """What it does; taken where nobody has said."""
    messages: BigInt | None = None
    """All messages so far; the sum of the days, when left out."""
    conversations: BigInt | None = None
    """All conversations so far."""
    users: BigInt | None = None
    """All distinct users so far."""
    total_tokens: BigInt | None = None
    """All tokens so far; prompt and completion tokens together, when left out, or else the sum of the days."""
    prompt_tokens: BigInt | None = None
    """All prompt tokens so far."""
    completion_tokens: BigInt | None = None
    """All completion tokens so far; what the total has beyond the two is counted as unsplit."""
    timeline: list[SnapshotDayInput] | None = None
    """Day by day, at most 4,000. It says everything from its first day on: a later day that is not in it had no use.
    Days before its first stay as reported earlier."""

    def read(self) -> Snapshot:
        """Turn it into what the counting understands."""
        return Snapshot(
            name=self.name,
            source=self.source,
            reported_at=self.reported_at,
            discipline=self.discipline,
            description=self.description,
            messages=self.messages,
            conversations=self.conversations,
            users=self.users,
            total_tokens=self.total_tokens,
            prompt_tokens=self.prompt_tokens,
            completion_tokens=self.completion_tokens,
            timeline=None if self.timeline is None else [day.read() for day in self.timeline],
        )


@input_type
class CollectSnapshotsInput:
    """Reports about agents."""

    agents: list[AgentSnapshotInput]
    """1 to 1,000 reports."""


@object_type
class CollectSnapshotsPayload:
    """What became of the reports. Every one that is not in `items` was accepted, stored and counted."""

    accepted: int
    """Reports that replaced the one before."""
    duplicates: int
    """Reports that were in place already: nothing changed."""
    rejected: int
    """Reports that were refused: nothing changed. One that a later report has overtaken has the code OUTDATED."""
    items: list[ItemResult]
    """Those not accepted, in order; at most as many as were reported."""
