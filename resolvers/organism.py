"""The organism: read it, and have its file applied again."""

from collections.abc import AsyncGenerator
from typing import Annotated

import strawberry
import structlog
from strawberry import ID

from auth.permissions import admins, operators
from graph import agents as agent_types
from graph.agents import AgentBy
from graph.context import Info
from graph.language import nodes
from graph.language.describe import object_type
from graph.language.guards import mutation, query, subscription
from graph.organism import Capability, Organism, OrganismChange, ReloadOrganismPayload, StopServerPayload
from graph.organism.watching import OrganismEvent, OrganismEventType, Watched, happening
from models.organism import applying

log = structlog.get_logger()


@object_type
class OrganismQueries:
    """What can be asked about the organism."""

    @query(allow=operators)
    async def organism(self) -> Organism | None:
        """Give an overview of the organism and of the server's configuration, without secrets."""
        return Organism(row=await applying.find())

    @query(allow=operators)
    async def capabilities(self) -> list[Capability] | None:
        """List what agents of the organism are able to do, in the order of the file; at most 200."""
        organism = await applying.find()
        return [Capability.of(row) for row in organism["capabilities"]] if organism else []

    @query(allow=operators)
    async def capability(
        self, info: Info, name: Annotated[str, strawberry.argument(description="What it is called.")]
    ) -> Capability | None:
        """Find one capability; null when there is none."""
        row = await info.context.find(applying.capabilities, name.strip())
        return Capability.of(row) if row else None


@object_type
class OrganismMutations:
    """How the organism is changed."""

    @mutation(allow=operators)
    async def reload_organism(self, info: Info) -> ReloadOrganismPayload | None:
        """Apply the file that ORGANISM_FILE names, all of it or nothing; every process works by it at once.

        Agents that are new in it are registered, those that are gone from it retired (their history stays), the others
        changed. Of a file with faults nothing is applied: BAD_USER_INPUT lists them all, each with its line.
        """
        changes = await info.context.services.organism.apply(now=info.context.now)
        log.info("organism applied", by=info.context.viewer.scope, changes=len(changes))
        return ReloadOrganismPayload(
            organism=Organism(row=await applying.find()), changes=[OrganismChange.of(each) for each in changes]
        )

    @mutation(allow=admins)
    async def stop_server(self, info: Info) -> StopServerPayload | None:
        """Stop the server that answers, all its workers: what runs is finished within seconds, nothing new is taken.

        It answers first. Servers on other hosts go on, and whatever watches over this one may start it again.
        """
        log.warning("asked to stop", by=info.context.viewer.scope)
        return StopServerPayload(processes=info.context.services.stop())


@object_type
class OrganismSubscriptions:
    """What can be watched."""

    @subscription(allow=operators)
    async def organism_events(
        self,
        info: Info,
        after: Annotated[
            str | None,
            strawberry.argument(description="Begin after the event with this cursor, the stored ones first."),
        ] = None,
        agents: Annotated[
            list[AgentBy] | None, strawberry.argument(description="Only those that concern these agents, at most 100.")
        ] = None,
        threads: Annotated[
            list[ID] | None, strawberry.argument(description="Only those of the threads with these ids, at most 100.")
        ] = None,
        types: Annotated[
            list[OrganismEventType] | None, strawberry.argument(description="Only those of these types.")
        ] = None,
    ) -> AsyncGenerator[OrganismEvent, None]:
        """Watch the organism: a snapshot of it first, then whatever happens, in the order in which it was stored.

        Keep the last `cursor` and pass it as `after` to go on after a break, without a snapshot; events are kept for a
        day, and whoever was away for longer begins with a snapshot again. The same is told by every server.
        """
        watched = Watched(
            agents=await agent_types.keys_of(agents, field="agents") if agents is not None else None,
            threads=nodes.decode_all(threads, "Thread", field="threads") if threads is not None else None,
            types=types,
        )
        async for event in happening(info.context, watched, after=after):
            yield event
