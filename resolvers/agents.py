"""The registry of agents: find, create, change, delete, claim."""

from functools import partial
from typing import Annotated

import strawberry

from auth import permissions
from auth.permissions import managers, readers, signed_in
from graph.agents import (
    Agent,
    AgentBy,
    AgentFilter,
    AgentOrder,
    ClaimAgentInput,
    ClaimAgentPayload,
    CreateAgentInput,
    CreateAgentPayload,
    DeleteAgentInput,
    DeleteAgentPayload,
    UpdateAgentInput,
    UpdateAgentPayload,
)
from graph.context import Info
from graph.language import nodes, pages
from graph.language.describe import object_type
from graph.language.guards import mutation, query
from graph.language.pages import After, Before, Connection, First, Last
from graph.language.rows import needed
from models import agents

Search = Annotated[
    str | None,
    strawberry.argument(
        description="Up to 10 words, each the beginning of a word in name, description, tags, department, contact "
        "or project."
    ),
]


@object_type
class AgentQueries:
    """What can be asked about agents."""

    @query(allow=readers)
    async def agent(self, by: Annotated[AgentBy, strawberry.argument(description="Which agent.")]) -> Agent | None:
        """Find one agent; null when there is none."""
        row = await agents.find(by.ref("by"))
        return Agent.of(row) if row else None

    @query(allow=readers)
    async def agents(
        self,
        info: Info,
        search: Search = None,
        filter: Annotated[AgentFilter | None, strawberry.argument(description="Only these.")] = None,
        order: Annotated[AgentOrder | None, strawberry.argument(description="By name, when left out.")] = None,
        first: First = None,
        after: After = None,
        last: Last = None,
        before: Before = None,
    ) -> Connection[Agent]:
        """List agents."""
        by = order.read() if order else agents.BY_NAME
        wanted = pages.asked("agents", by, first=first, after=after, last=last, before=before)
        chosen = (filter or AgentFilter()).read(search)
        page = await agents.page(chosen, order=by, window=wanted.window, needed=needed(info, Agent))
        return wanted.connection(page, Agent.of, partial(agents.count, chosen))


@object_type
class AgentMutations:
    """What can be changed about agents."""

    @mutation(allow=managers)
    async def create_agent(self, info: Info, input: CreateAgentInput) -> CreateAgentPayload | None:
        """Register an agent. It belongs to the person who does; to nobody when an API key does."""
        viewer = info.context.viewer
        row = await agents.create(input.values(), owner=viewer.user, by_person=viewer.is_person, now=info.context.now)
        return CreateAgentPayload(agent=Agent.of(row))

    @mutation(allow=managers)
    async def update_agent(self, info: Info, input: UpdateAgentInput) -> UpdateAgentPayload | None:
        """Change an agent: your own, any for an admin or a key with scope MANAGE."""
        values = input.values()
        row = await agents.update(
            input.agent.ref("agent"),
            values,
            only_owner=permissions.owner_limit(info.context.viewer),
            now=info.context.now,
        )
        return UpdateAgentPayload(agent=Agent.of(row))

    @mutation(allow=managers)
    async def delete_agent(self, info: Info, input: DeleteAgentInput) -> DeleteAgentPayload | None:
        """Delete an agent: your own, any for an admin or a key with scope MANAGE."""
        key = await agents.delete(
            input.agent.ref("agent"), only_owner=permissions.owner_limit(info.context.viewer), now=info.context.now
        )
        return DeleteAgentPayload(deleted_id=nodes.encode("Agent", key))

    @mutation(allow=signed_in)
    async def claim_agent(self, info: Info, input: ClaimAgentInput) -> ClaimAgentPayload | None:
        """Take over an agent that nobody owns."""
        row = await agents.claim(
            input.agent.ref("agent"), owner=info.context.viewer.require_user(), now=info.context.now
        )
        return ClaimAgentPayload(agent=Agent.of(row))
