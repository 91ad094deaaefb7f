"""How work goes right now: the dashboard's figures, and runs as they begin and end."""

from datetime import datetime
from decimal import Decimal
from typing import TYPE_CHECKING, Annotated

import strawberry
from strawberry import Private

import graph.agents
from graph.context import Info
from graph.language.describe import field, object_type
from graph.language.enums import expose
from graph.language.rows import reader
from graph.language.scalars import BigInt, as_usd
from graph.runs.recorded import Run, RunStatus
from models import agents
from models.runs import dashboard, happenings
from models.store.database import Row

if TYPE_CHECKING:
    from graph.agents import Agent

Trend = expose(dashboard.Trend)


@object_type
class DashboardFigure:
    """One figure of the dashboard, beside the same figure of an earlier time of the same length."""

    title: str
    """What it is: Active Agents, Total Runs Today, Avg Response Time or Total Cost Today."""
    value: str
    """The figure as people read it; `–` for a time of which there is none."""
    change: str
    """How it has changed and against when, as people read it."""
    icon: str
    """The name of its icon, of those that Lucide has: Bot, Activity, Clock or DollarSign."""
    trend: Trend  # type: ignore[valid-type]  # mypy takes an exposed enum for a variable
    """Which way it has gone."""
    raw: float
    """The figure itself: a number of agents or runs, milliseconds, US dollars; 0 where there is none."""
    improved: bool | None
    """Whether it is for the better: more agents and runs are, longer times and higher costs are not; null for FLAT."""

    @classmethod
    def of(cls, figure: dashboard.DashboardFigure) -> "DashboardFigure":
        """Shape a figure."""
        return cls(
            title=figure.title,
            value=figure.value,
            change=figure.change,
            icon=figure.icon,
            trend=figure.trend,
            raw=figure.raw,
            improved=figure.improved,
        )


@object_type
class Activity:
    """The latest that is known of one run: that it began, or how it ended."""

    row: Private[Row]
    cursor: str | None = None
    """Its place in what is watched: subscribe with `after` set to it to go on from here; null in `recentActivity`."""
    action: str
    """What happened, as people read it: started, completed, failed, timed out or was cancelled."""
    status: RunStatus  # type: ignore[valid-type]  # mypy takes an exposed enum for a variable
    """How far the run has come."""
    at: datetime
    """When it ended where that is known, else when it began; never later than it was reported."""
    duration_ms: BigInt | None
    """How long it took, in milliseconds; null while it runs, and when nobody has said."""

    @field
    def run(self) -> Run:
        """Give the run."""
        return Run.of(self.row)

    @field
    async def agent(self, info: Info) -> Annotated["Agent", strawberry.lazy("graph.agents")]:
        """Give the agent whose run it is."""
        return graph.agents.Agent.of(await info.context.load(agents.by_keys, self.row["agent"]))

    @field
    def cost(self) -> Decimal:
        """Give the run's cost in US dollars; 0 when nobody has said."""
        return as_usd(self.row["cost_nanodollars"] or 0)

    @property
    def event_key(self) -> str | None:
        """What tells it from any other that is watched: its answer is made once for all who are shown the same."""
        return self.cursor

    @classmethod
    def of(cls, row: Row) -> "Activity":
        """Shape a stored run."""
        return _activity(row)

    @classmethod
    def heard(cls, happening: happenings.Happening) -> "Activity":
        """Shape what has just happened."""
        return _activity({**happening.row, "cursor": happening.cursor})


_activity = reader(
    Activity,
    action=lambda row: happenings.action(row["status"]),
    # Those of the first days of runs have none.
    at=lambda row: row.get("at") or row["created_at"],
)
