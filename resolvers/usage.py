"""Usage: report it, read it."""

from typing import Annotated

import strawberry
from strawberry import ID

from auth.permissions import admins, collectors, readers
from graph.agents import AgentBy, AgentFilter
from graph.context import Info
from graph.language.describe import object_type
from graph.language.guards import mutation, query
from graph.usage.collecting import (
    CollectSnapshotsInput,
    CollectSnapshotsPayload,
    CollectUsageInput,
    CollectUsagePayload,
    ItemResult,
    counted,
)
from graph.usage.events import UsageEvent
from graph.usage.figures import Days, From, To, Usage, figures_of_usage
from graph.usage.summary import ResetUsageInput, ResetUsagePayload, UsageSummary
from models import agents
from models.errors import BadInput
from models.store import commits
from models.usage import counting, events, resets, snapshots
from models.usage import days as kept


@object_type
class UsageQueries:
    """What can be asked about usage."""

    # Two thousand: what a company's fleet of agents takes to add up.
    @query(allow=readers, weight=2000)
    async def usage(
        self,
        info: Info,
        filter: Annotated[AgentFilter | None, strawberry.argument(description="Only these agents.")] = None,
        agent: Annotated[
            AgentBy | None, strawberry.argument(description="Only this agent; not together with `filter`.")
        ] = None,
        days: Days = 30,
        from_: From = None,
        to: To = None,
    ) -> Usage:
        """Give the usage of all agents, of some or of one, over a span of days. Deleted agents do not count."""
        if filter is not None and agent is not None:
            raise BadInput.at("agent", "Give `filter` or `agent`, not both.")
        today = kept.today(info.context.now, info.context.services.zone)
        first, last = kept.window(days, from_, to, today=today)
        if agent is not None:
            keys = [(await agents.require(agent.ref("agent"), field="agent"))["_id"]]
        else:
            keys = list(await agents.keys_of((filter or AgentFilter()).read()))
        return Usage(span=await kept.span(keys, first=first, last=last, figures=figures_of_usage(info)), agents=keys)

    @query(allow=readers)
    async def usage_event(
        self,
        id: Annotated[ID, strawberry.argument(description="The event's idempotency key, as it was reported.")],
        # Strawberry's extensions have an argument `source` of their own.
        of: Annotated[str, strawberry.argument(name="source", description="The system that reported it.")] = "default",
    ) -> UsageEvent | None:
        """Find one event, with its cost and where that comes from; null when there is none."""
        row = await events.find(of, id)
        return UsageEvent.of(row) if row else None

    @query(allow=readers, weight=2000)
    async def usage_summary(
        self,
        info: Info,
        agent: Annotated[AgentBy | None, strawberry.argument(description="Only this agent.")] = None,
        model: Annotated[
            str | None, strawberry.argument(description="Only this model, by its name as reported; empty for none.")
        ] = None,
    ) -> UsageSummary:
        """Give what has been counted since the last `resetUsage`: totals, by agent, by model."""
        key = (await agents.require(agent.ref("agent"), field="agent"))["_id"] if agent else None
        found = await resets.summary(agent=key, model=model, now=info.context.now)
        return UsageSummary(summary=found, agent=key)


@object_type
class UsageMutations:
    """How usage is reported."""

    @mutation(allow=collectors)
    async def collect_usage(self, info: Info, input: CollectUsageInput) -> CollectUsagePayload | None:
        """Report usage events. Each is counted exactly once, however often it is sent.

        An event that is answered, as accepted or as a duplicate, is stored on a majority of the database's servers.
        When no answer comes, or SERVICE_UNAVAILABLE, send the same events again.
        """
        services, now = info.context.services, info.context.now
        batch = counting.read(input.source, input.read(), now=now)
        answers = await services.commits.submit(services.counting, batch.accepted, weight=len(input.events))
        outcomes = batch.merged(answers)
        return CollectUsagePayload(**counted("event", outcomes), items=ItemResult.of(outcomes))

    @mutation(allow=collectors)
    async def collect_snapshots(self, info: Info, input: CollectSnapshotsInput) -> CollectSnapshotsPayload | None:
        """Report agents as a whole: cumulative figures, and days. The same report twice changes nothing.

        A later report of a source replaces its earlier one, downwards too; an older one that arrives late is refused
        with OUTDATED. An agent fed by events and by snapshots has both: do not report the same work in two ways.
        """
        services = info.context.services
        report = snapshots.read([each.read() for each in input.agents], now=info.context.now)
        weight = snapshots.WEIGHT * len(input.agents)
        outcomes = report.merged(await services.commits.submit(services.snapshots, report, weight=weight))
        return CollectSnapshotsPayload(**counted("snapshot", outcomes), items=ItemResult.of(outcomes))

    @mutation(allow=admins)
    async def reset_usage(self, info: Info, input: ResetUsageInput) -> ResetUsagePayload | None:
        """Have `usageSummary` count anew from now on. Events stay, and so do lifetime figures, days, hours and alerts.

        An event counts before the reset or after it, never both: one that is sent after the answer counts after it.
        """
        input.check()
        services, by = info.context.services, info.context.viewer.require_user()
        await services.commits.submit(services.resetting, by, weight=commits.LARGEST)
        found = await resets.summary(agent=None, model=None, now=info.context.now)
        return ResetUsagePayload(usage_summary=UsageSummary(summary=found, agent=None))
