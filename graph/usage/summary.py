"""Usage since the last reset, as clients read it and reset it."""

from collections.abc import Mapping
from datetime import datetime
from typing import Annotated, TypeVar

import strawberry
from strawberry import Private

import graph.agents
from graph.context import Info
from graph.language.describe import field, input_type, object_type
from graph.language.pages import bounded
from graph.language.scalars import BigInt
from graph.usage.figures import AgentUsage, ModelUsage, UsageTotals
from graph.users import User
from models import agents, users
from models.store.database import Key
from models.threads import conversations
from models.threads.conversations import ThreadStatus
from models.usage import resets
from models.usage.days import Totals
from models.usage.resets import Summary

N = TypeVar("N", Key, str)

First = Annotated[int | None, strawberry.argument(description="How many, 1 to 100.")]


@object_type
class UsageSummary:
    """What has been counted since the last reset, as it arrived: every event since then, whatever its own time says.

    Calls of models that were reported as events; the cumulative reports of other systems (`collectSnapshots`) are not
    among them. Kept ready: it costs the same to read after a day and after years.
    """

    summary: Private[Summary]
    agent: Private[Key | None]

    @field
    def since(self) -> datetime | None:
        """When usage was last reset, by the database's clock; null when never: all events count."""
        return self.summary.since

    @field
    async def reset_by(self, info: Info) -> User | None:
        """Who reset it; null when nobody has, or when the account is gone."""
        row = await info.context.find(users.by_keys, self.summary.by)
        return User.of(row) if row else None

    @field
    def totals(self) -> UsageTotals:
        """Everything together, deleted agents too; `requests`, `cost` and `averageLatencyMs` among it."""
        return UsageTotals.of_totals(self.summary.totals)

    @field
    async def by_agent(self, first: First = 20) -> list[AgentUsage]:
        """Agent by agent, highest tokens first, deleted ones too; at most 100."""
        used = _largest(self.summary.by_agent, first)
        found = await agents.by_keys([key for key, _ in used])
        return [
            AgentUsage(agent=graph.agents.Agent.of(found[key]), totals=UsageTotals.of_totals(totals))
            for key, totals in used
            if key in found
        ]

    @field
    def by_model(self, first: First = 20) -> list[ModelUsage]:
        """Model by model, highest tokens first; at most 100."""
        used = _largest(self.summary.by_model, first)
        return [ModelUsage(model=model, totals=UsageTotals.of_totals(totals)) for model, totals in used]

    @field
    async def threads_active(self) -> BigInt:
        """Count the threads that are ACTIVE now; of one agent, those that it takes part in."""
        participants = [self.agent] if self.agent is not None else []
        return BigInt(await conversations.count(status=ThreadStatus.ACTIVE, participants=participants))


def _largest(shares: Mapping[N, Totals], first: int | None) -> list[tuple[N, Totals]]:
    used = [each for each in shares.items() if each[1].sums["requests"]]
    return sorted(used, key=lambda each: (-each[1].total_tokens, each[0]))[: bounded(first)]


# ---------------------------------------------------------------- resetUsage


@input_type
class ResetUsageInput:
    """The confirmation that all sums of `usageSummary` shall begin anew."""

    confirm: str
    """Type `reset usage`."""

    def check(self) -> None:
        """Refuse what is no confirmation."""
        resets.check(self.confirm)


@object_type
class ResetUsagePayload:
    """Usage counts from now on."""

    usage_summary: UsageSummary
    """What has been counted since the reset; events that were being counted at that moment may be in it already."""
