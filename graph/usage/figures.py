"""Usage as clients read it: totals, days, hours, shares."""

from collections.abc import Mapping, Sequence
from datetime import date, datetime
from decimal import Decimal
from typing import TYPE_CHECKING, Annotated, Any, Final, TypeVar

import strawberry
from strawberry import Private

import graph.agents
from graph.context import Info
from graph.language.describe import field, object_type
from graph.language.enums import expose
from graph.language.pages import bounded
from graph.language.rows import made, reader, selected
from graph.language.scalars import BigInt, as_usd
from models import agents
from models.store.database import Key, Row
from models.usage import days, events
from models.usage.days import Lines, Span, Totals

if TYPE_CHECKING:
    from graph.agents import Agent

L = TypeVar("L")

ItemOutcome = expose(events.ItemOutcome)

_ZERO: Final = BigInt(0)


@object_type
class UsageTotals:
    """Figures summed over an agent's life, or over the agents and days asked for."""

    messages: BigInt = _ZERO
    """Messages exchanged."""
    conversations: BigInt = _ZERO
    """Distinct conversations, each counted once per agent, on the day of its earliest event; 0 by model and in a
    `UsageSummary`."""
    users: BigInt = _ZERO
    """Distinct users, each counted once per agent, on the day of their earliest event; 0 by model and in a
    `UsageSummary`."""
    requests: BigInt = _ZERO
    """Calls of models, one per event."""
    prompt_tokens: BigInt = _ZERO
    """Prompt tokens, cached and cache-write ones included."""
    completion_tokens: BigInt = _ZERO
    """Completion tokens, reasoning ones included."""
    total_tokens: BigInt = _ZERO
    """Prompt, completion and unsplit tokens together."""
    cached_tokens: BigInt = _ZERO
    """Prompt tokens read from a cache."""
    reasoning_tokens: BigInt = _ZERO
    """Completion tokens spent on reasoning."""
    unsplit_tokens: BigInt = _ZERO
    """Tokens in the total that were reported without saying prompt or completion."""
    cost: Decimal
    """Cost in US dollars of the events whose cost is known, reported or by the price table."""
    unpriced_events: BigInt = _ZERO
    """Events whose cost is unknown, neither reported nor in the price table: they are not in `cost`."""
    average_latency_ms: float | None
    """Mean latency of a call in milliseconds; null when no event told one."""
    first_used_at: datetime | None
    """The earliest event; null without any."""
    last_used_at: datetime | None
    """The latest event; null without any."""

    @classmethod
    def of_lifetime(cls, usage: Row) -> "UsageTotals":
        """Shape an agent's lifetime figures."""
        return _totals(usage)

    @classmethod
    def of_totals(cls, totals: Totals) -> "UsageTotals":
        """Shape sums over days."""
        sums = {**totals.sums, "total_tokens": totals.total_tokens}
        return _totals({**sums, "first_used_at": totals.first_used_at, "last_used_at": totals.last_used_at})


_totals = reader(
    UsageTotals,
    cost=lambda sums: as_usd(sums.get("cost_nanodollars", 0)),
    average_latency_ms=lambda sums: sums["latency_ms"] / sums["timed_events"] if sums.get("timed_events") else None,
)


@object_type
class UsageDay:
    """The figures of one day; zeros on a day without use."""

    day: date
    """The day, in the company's time zone."""
    messages: BigInt
    """Messages exchanged."""
    requests: BigInt
    """Calls of models."""
    prompt_tokens: BigInt
    """Prompt tokens."""
    completion_tokens: BigInt
    """Completion tokens."""
    unsplit_tokens: BigInt
    """Tokens reported without saying prompt or completion."""
    total_tokens: BigInt
    """Prompt, completion and unsplit tokens together."""
    nanodollars: Private[int]

    @field
    def cost(self) -> Decimal:
        """Give the known cost in US dollars."""
        return as_usd(self.nanodollars)

    @classmethod
    def of(cls, lines: Lines[date]) -> list["UsageDay"]:
        """Shape days."""
        return _shaped(cls, "day", lines)


@object_type
class UsageHour:
    """The figures of one hour; zeros in an hour without use."""

    hour: datetime
    """The moment at which the hour begins (UTC)."""
    messages: BigInt
    """Messages exchanged."""
    requests: BigInt
    """Calls of models."""
    prompt_tokens: BigInt
    """Prompt tokens."""
    completion_tokens: BigInt
    """Completion tokens."""
    unsplit_tokens: BigInt
    """Tokens reported without saying prompt or completion."""
    total_tokens: BigInt
    """Prompt, completion and unsplit tokens together."""
    nanodollars: Private[int]

    @field
    def cost(self) -> Decimal:
        """Give the known cost in US dollars."""
        return as_usd(self.nanodollars)

    @classmethod
    def of(cls, lines: Lines[datetime]) -> list["UsageHour"]:
        """Shape hours."""
        return _shaped(cls, "hour", lines)


_READ_FOR: Final[Mapping[str, Sequence[str]]] = {
    "messages": ("messages",),
    "requests": ("requests",),
    "promptTokens": ("prompt_tokens",),
    "completionTokens": ("completion_tokens",),
    "unsplitTokens": ("unsplit_tokens",),
    "totalTokens": ("prompt_tokens", "completion_tokens", "unsplit_tokens"),
    "cost": ("cost_nanodollars",),
}


def figures(info: Info, *below: str) -> Sequence[str]:
    """Name the figures that must be read for what is selected of a line; `below` as `selected` has it."""
    return tuple(sorted({figure for name in selected(info, *below) for figure in _READ_FOR.get(name, ())}))


def figures_of_usage(info: Info) -> Sequence[str]:
    """Name the figures that must be read for what is selected of `Usage`: all, where more than its days are."""
    return days.FIGURES if selected(info) & {"totals", "byAgent", "byModel"} else figures(info, "timeline")


def _shaped(cls: type[L], name: str, lines: Lines[Any]) -> list[L]:
    # Nobody asks for what was not read.
    zeros = [0] * len(lines.at)
    columns = [lines.columns.get(figure, zeros) for figure in days.SHOWN]
    return [
        made(
            cls,
            {
                name: at,
                "messages": messages,
                "requests": requests,
                "prompt_tokens": prompt,
                "completion_tokens": completion,
                "unsplit_tokens": unsplit,
                "total_tokens": prompt + completion + unsplit,
                "nanodollars": nanodollars,
            },
        )
        for at, messages, requests, prompt, completion, unsplit, nanodollars in zip(lines.at, *columns, strict=True)
    ]


@object_type
class AgentUsage:
    """One agent's share."""

    agent: Annotated["Agent", strawberry.lazy("graph.agents")]
    """The agent."""
    totals: UsageTotals
    """Its figures over the days asked for."""


@object_type
class ModelUsage:
    """One model's share."""

    model: str
    """The model's name as reported; empty for events that named none."""
    totals: UsageTotals
    """Its figures over the days asked for."""


Hours = Annotated[
    int | None, strawberry.argument(description="How many hours up to now, 1 to 744; the last one is still running.")
]
Days = Annotated[
    int | None, strawberry.argument(description="How many days up to `to` or today, 1 to 366; not with `from`.")
]
From = Annotated[date | None, strawberry.argument(name="from", description="The first day.")]
To = Annotated[date | None, strawberry.argument(name="to", description="The last day; today when left out.")]


@object_type
class Usage:
    """Usage of a selection of agents over a span of days."""

    span: Private[Span]
    agents: Private[Sequence[Key]]

    @field
    def totals(self) -> UsageTotals:
        """Everything together."""
        return UsageTotals.of_totals(self.span.totals)

    @field
    def timeline(self) -> list[UsageDay]:
        """Day by day, ascending, days without use as zeros; at most 366."""
        return UsageDay.of(self.span.by_day)

    @field
    async def by_hour(self, info: Info, hours: Hours = 24) -> list[UsageHour]:
        """Give the last hours up to now, whatever days were asked for; ascending, without use as zeros; at most 744."""
        since, count = days.hours_back(hours, now=info.context.now)
        return UsageHour.of(await days.fleet_hours(self.agents, since=since, hours=count))

    @field
    async def by_agent(
        self,
        first: Annotated[int | None, strawberry.argument(description="How many, 1 to 100.")] = 20,
    ) -> list[AgentUsage]:
        """Agent by agent, highest tokens first, those without use left out; at most 100."""
        used = sorted(self.span.by_agent.items(), key=lambda each: (-each[1].total_tokens, each[0]))[: bounded(first)]
        found = await agents.by_keys([key for key, _ in used])
        return [
            AgentUsage(agent=graph.agents.Agent.of(found[key]), totals=UsageTotals.of_totals(totals))
            for key, totals in used
            if key in found
        ]

    @field
    def by_model(self) -> list[ModelUsage]:
        """Model by model, highest tokens first; as many as were used."""
        used = sorted(self.span.by_model.items(), key=lambda each: (-each[1].total_tokens, each[0]))
        return [
            ModelUsage(model=model, totals=UsageTotals.of_totals(totals))
            for model, totals in used
            # Users and conversations are kept beside the models, under no name.
            if model or totals.sums["requests"] or totals.total_tokens
        ]
