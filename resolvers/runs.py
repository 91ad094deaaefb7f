"""Versions and runs: report them, read them."""

from functools import partial
from typing import Annotated

import strawberry

from auth.permissions import collectors, readers
from graph.agents import Agent, AgentBy
from graph.context import Info
from graph.language import pages
from graph.language.describe import object_type
from graph.language.guards import mutation, query
from graph.language.pages import After, Connection, First
from graph.runs import (
    AddAgentVersionInput,
    AddAgentVersionPayload,
    AgentVersion,
    RecordRunsInput,
    RecordRunsPayload,
    RegisterAgentInput,
    RegisterAgentPayload,
    VersionStatus,
    as_reported,
)
from graph.usage.collecting import ItemResult, counted
from models import agents
from models.runs import recording, versions
from models.usage import reported


@object_type
class RunQueries:
    """What can be asked about versions and runs."""

    @query(allow=readers)
    async def agent_version(
        self,
        agent: Annotated[AgentBy, strawberry.argument(description="Whose version.")],
        version: Annotated[str, strawberry.argument(description="What the version is called.")],
    ) -> AgentVersion | None:
        """Find one version of an agent; null when there is none."""
        found = await agents.find(agent.ref("agent"))
        row = await versions.find(found["_id"], version) if found else None
        return AgentVersion.of(row) if row else None

    @query(allow=readers)
    async def agent_versions(
        self,
        info: Info,
        search: Annotated[
            str | None,
            strawberry.argument(
                description="Up to 10 words, each the beginning of one in agent, project, version or cluster."
            ),
        ] = None,
        status: Annotated[
            VersionStatus | None,  # type: ignore[valid-type]  # mypy takes an exposed enum for a variable
            strawberry.argument(description="Only those in use, or only those that are not."),
        ] = None,
        first: First = None,
        after: After = None,
    ) -> Connection[AgentVersion]:
        """List all versions of all agents with their metrics, last seen first."""
        now = info.context.now
        wanted = pages.asked("agent versions", versions.LAST_SEEN, first=first, after=after)
        page = await versions.page(search=search, status=status, now=now, window=wanted.window)
        return wanted.connection(page, AgentVersion.of, partial(versions.count, search=search, status=status, now=now))


@object_type
class RunMutations:
    """How versions and runs are reported."""

    @mutation(allow=collectors)
    async def register_agent(self, info: Info, input: RegisterAgentInput) -> RegisterAgentPayload | None:
        """Make an agent known by name and project, without an owner; one that is known already stays as it is."""
        row, created = await reported.register(input.name, project=input.project, now=info.context.now)
        return RegisterAgentPayload(agent=Agent.of(row), created=created)

    @mutation(allow=collectors)
    async def add_agent_version(self, info: Info, input: AddAgentVersionInput) -> AddAgentVersionPayload | None:
        """Add a version to an agent, or change what is said of one."""
        agent = await agents.require(input.agent.ref("agent"), field="agent")
        row, created = await versions.add(agent, input.values(), now=info.context.now)
        return AddAgentVersionPayload(agent_version=AgentVersion.of(row), created=created)

    @mutation(allow=collectors)
    async def record_runs(self, info: Info, input: RecordRunsInput) -> RecordRunsPayload | None:
        """Record runs of a version. Each is counted exactly once by its id, however often it is sent.

        Runs say how work went, usage events what it cost in tokens: neither counts for the other, so both may be
        reported of the same work. When no answer comes, or SERVICE_UNAVAILABLE, send the same runs again.
        """
        services, now = info.context.services, info.context.now
        version = recording.check(input.version, len(input.runs))
        fit, refused = recording.part(as_reported(input.runs), now=now)
        batch = recording.Batch(input.agent.ref("agent"), version, fit, now)
        recorded = await services.commits.submit(services.recording, batch, weight=len(input.runs))
        outcomes = recording.merged(refused, recording.require_known(recorded))
        return RecordRunsPayload(**counted("run", outcomes), items=ItemResult.of(outcomes))
