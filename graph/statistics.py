"""The company in figures, as admins see it."""

import asyncio
from dataclasses import asdict
from datetime import date, datetime
from typing import Annotated

import strawberry
from strawberry import Private

from graph.agents import Agent, AgentStatus, AuditStatus
from graph.alerts import Discipline
from graph.context import Info
from graph.language.describe import field, object_type
from graph.language.pages import bounded
from graph.usage.figures import AgentUsage, UsageTotals
from models import agents, statistics
from models.statistics import Months, People, Shares


@object_type
class StatusCount:
    """How many agents stand at one point of their life."""

    status: AgentStatus  # type: ignore[valid-type]  # mypy takes an exposed enum for a variable
    """Where they stand."""
    count: int
    """How many."""


@object_type
class AuditStatusCount:
    """How many agents have passed the audit, or have not."""

    audit_status: AuditStatus  # type: ignore[valid-type]  # mypy takes an exposed enum for a variable
    """Whether they have passed."""
    count: int
    """How many."""


@object_type
class DisciplineCount:
    """How many agents work for one part of the company."""

    discipline: Discipline | None  # type: ignore[valid-type]  # mypy takes an exposed enum for a variable
    """The part of the company; null for those of which nobody has said."""
    count: int
    """How many."""


@object_type
class ProjectCount:
    """How many agents belong to one project."""

    project: str | None
    """The project; null for those that belong to none."""
    count: int
    """How many."""


@object_type
class AgentStatistics:
    """How many agents there are, and what they are. Deleted ones do not count."""

    total: int
    """All of them."""
    unclaimed: int
    """Those without an owner."""
    by_status: list[StatusCount]
    """One entry for each status, in the order of the enum."""
    by_audit_status: list[AuditStatusCount]
    """One entry for each audit status, in the order of the enum."""
    by_discipline: list[DisciplineCount]
    """One entry for each discipline, in the order of the enum, then those of none."""
    by_project: list[ProjectCount]
    """The projects with the most agents first; at most 100."""

    @classmethod
    def of(cls, found: Shares) -> "AgentStatistics":
        """Shape counts; what does not occur counts zero."""
        return cls(
            total=found.total,
            unclaimed=found.unclaimed,
            by_status=[StatusCount(status=each, count=found.by_status.get(each, 0)) for each in agents.AgentStatus],
            by_audit_status=[
                AuditStatusCount(audit_status=each, count=found.by_audit_status.get(each, 0))
                for each in agents.AuditStatus
            ],
            by_discipline=[
                DisciplineCount(discipline=each, count=found.by_discipline.get(each, 0))
                for each in (*agents.Discipline, None)
            ],
            by_project=[ProjectCount(project=project, count=count) for project, count in found.by_project.items()],
        )


@object_type
class UserStatistics:
    """How many people have accounts, and how many were here lately."""

    total: int
    """All accounts, deactivated ones too."""
    active: int
    """Those that may sign in."""
    admins: int
    """Admins that may sign in."""
    agents_per_user: float
    """Agents that have an owner, divided by the accounts that may sign in. `User.agentCount` has it for each."""
    seen_last_day: int
    """Those that may sign in and were here in the last 24 hours."""
    seen_last_week: int
    """The same of the last 7 days."""
    seen_last_month: int
    """The same of the last 30 days."""
    last_seen_at: datetime | None
    """When anybody was last here, to the minute."""

    @classmethod
    def of(cls, found: People, *, owned: int) -> "UserStatistics":
        """Shape counts; `owned` is how many agents have an owner."""
        return cls(**asdict(found), agents_per_user=owned / found.active)


@object_type
class MonthStatistics:
    """This month against the last, over all agents, deleted ones too: what they used has been used."""

    this_month: UsageTotals
    """Since the first of this month, in the company's time zone."""
    last_month: UsageTotals
    """The whole of last month."""
    last_month_to_date: UsageTotals
    """Last month up to the same day of the month as today."""
    tokens_change: float | None
    """Tokens of this month against those of last month up to the same day, in percent (25.0: a quarter more); null
    when there were none."""
    cost_change: float | None
    """The same for the known cost."""

    @classmethod
    def of(cls, found: Months) -> "MonthStatistics":
        """Shape months."""
        cost = "cost_nanodollars"
        return cls(
            this_month=UsageTotals.of_totals(found.this),
            last_month=UsageTotals.of_totals(found.last),
            last_month_to_date=UsageTotals.of_totals(found.last_to_date),
            tokens_change=_change(found.this.total_tokens, found.last_to_date.total_tokens),
            cost_change=_change(found.this.sums[cost], found.last_to_date.sums[cost]),
        )


def _change(now: int, before: int) -> float | None:
    return (now - before) / before * 100 if before else None


@object_type
class Statistics:
    """The company in figures. They are kept as usage is counted: a read costs the same after years of it."""

    today: Private[date]

    @field
    async def agents(self) -> AgentStatistics:
        """Count agents by what they are."""
        return AgentStatistics.of(await statistics.shares())

    @field
    async def users(self, info: Info) -> UserStatistics:
        """Count people."""
        found, owned = await asyncio.gather(
            statistics.people(info.context.now), agents.count(agents.Filter(unclaimed=False))
        )
        return UserStatistics.of(found, owned=owned)

    @field
    async def usage(self) -> MonthStatistics:
        """Compare this month with the last."""
        return MonthStatistics.of(await statistics.months(self.today))

    @field
    async def top_agents(
        self, first: Annotated[int | None, strawberry.argument(description="How many, 1 to 100.")] = 10
    ) -> list[AgentUsage]:
        """Give the agents with the most tokens this month, highest first; those without use are left out."""
        used = await statistics.top_agents(self.today, count=bounded(first))
        found = await agents.by_keys([key for key, _ in used])
        return [
            AgentUsage(agent=Agent.of(found[key]), totals=UsageTotals.of_totals(totals))
            for key, totals in used
            if key in found
        ]
