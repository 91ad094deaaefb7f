"""What reporters say of versions and runs, and what they are told."""

from collections.abc import Sequence
from datetime import datetime
from decimal import Decimal
from typing import TYPE_CHECKING, Annotated

import strawberry
from strawberry import ID, Maybe

from graph.language.describe import changes, input_type, object_type
from graph.language.scalars import BigInt
from graph.runs.recorded import AgentVersion, RunStatus
from graph.usage.collecting import ItemResult
from models.runs import reports
from models.runs.reports import Run as ReportedRun
from models.usage.events import Outcome

if TYPE_CHECKING:
    from graph.agents import Agent, AgentBy


# ---------------------------------------------------------------- registerAgent


@input_type
class RegisterAgentInput:
    """An agent that is to be known; to say so again changes nothing."""

    name: str
    """What it is called: 1 to 200 characters, unique among agents."""
    project: str | None = None
    """The project it belongs to, at most 100 characters; taken where nobody has said."""


@object_type
class RegisterAgentPayload:
    """The agent, known now."""

    agent: Annotated["Agent", strawberry.lazy("graph.agents")]
    """The agent."""
    created: bool
    """Whether it was new."""


# ---------------------------------------------------------------- addAgentVersion


@input_type
class AddAgentVersionInput:
    """A version of an agent; what is left out of one that is known stays as it is, null clears."""

    agent: Annotated["AgentBy", strawberry.lazy("graph.agents")]
    """Which agent."""
    version: str
    """What it is called: 1 to 100 characters."""
    cluster: Maybe[str | None]
    """Where it runs, at most 200 characters."""
    deployment: Maybe[str | None]
    """How it is deployed there, at most 200 characters."""
    tools: Maybe[list[str]]
    """The tools that it has: at most 100, of 1 to 200 characters; the list replaces the old one."""
    models: Maybe[list[str]]
    """The models that it asks: at most 100, of 1 to 200 characters; the list replaces the old one."""

    def values(self) -> dict[str, object]:
        """Give what is said of the version."""
        return {"version": self.version, **changes(self)}


@object_type
class AddAgentVersionPayload:
    """The version, known now."""

    agent_version: AgentVersion
    """The version."""
    created: bool
    """Whether it was new."""


# ---------------------------------------------------------------- recordRuns


@input_type
class RunInput:
    """One run. One that is reported RUNNING is completed by a later report with the same id.

    What that report leaves out, of task, initiator, tools, models and cost, stays as it was said.
    """

    id: ID
    """Its identifier, yours: the same for every report of it, unique within the agent; 1 to 200 characters."""
    status: RunStatus  # type: ignore[valid-type]  # mypy takes an exposed enum for a variable
    """How far it has come."""
    created_at: datetime
    """When it began; at most 24 hours ahead. What a later report says of it is not taken."""
    task_id: ID | None = None
    """The task that it worked on; your identifier, not ours."""
    time_taken: str | None = None
    """How long it took, at most 366 days: `5m30s`, `1h2m3.5s` as Go writes it, or `PT5M30S` as ISO 8601 does."""
    duration_ms: BigInt | None = None
    """The same in milliseconds. Sent with `timeTaken`, both must say the same. Not kept of a run that is RUNNING."""
    initiator: str | None = None
    """Who or what began it, at most 200 characters."""
    tools: list[str] | None = None
    """The tools that it used, at most 100."""
    models: list[str] | None = None
    """The models that it asked, at most 100."""
    cost: Decimal | None = None
    """Its cost in US dollars, 0 to 1,000,000, rounded to the nanodollar. It is the version's spend, and no
    usage: events are."""

    def read(self) -> ReportedRun | Outcome:
        """Turn it into a run; a duration that cannot be read refuses it."""
        took = reports.duration(self.time_taken, self.duration_ms)
        if isinstance(took, Outcome):
            return took
        return ReportedRun(
            run_id=self.id,
            status=self.status,
            created_at=self.created_at,
            duration_ms=took,
            task_id=self.task_id or None,
            initiator=self.initiator or None,
            tools=self.tools or (),
            models=self.models or (),
            cost=self.cost,
        )


@input_type
class RecordRunsInput:
    """Runs of one version of one agent."""

    agent: Annotated["AgentBy", strawberry.lazy("graph.agents")]
    """Which agent. An unknown name is registered; an unknown id refuses the request."""
    version: str
    """Which version; an unknown one is added."""
    runs: list[RunInput]
    """1 to 1,000 runs."""


@object_type
class RecordRunsPayload:
    """What became of the runs. Every run that is not in `items` was accepted, stored and counted."""

    accepted: int
    """Runs stored now, or completed now."""
    duplicates: int
    """Runs that had been recorded before: nothing changed."""
    rejected: int
    """Runs that were refused: nothing changed."""
    items: list[ItemResult]
    """Those not accepted, in order; at most as many as were sent."""


def as_reported(runs: Sequence[RunInput]) -> list[ReportedRun | Outcome]:
    """Turn inputs into runs, or what refuses them."""
    return [run.read() for run in runs]
