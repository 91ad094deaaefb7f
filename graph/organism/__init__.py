"""The organism as clients see it: what its file declares, and what applying it has changed."""

import asyncio
from datetime import datetime

import orjson
from strawberry import Private
from strawberry.utils.str_converters import to_camel_case

from graph.agents import Agent, AgentState
from graph.context import Info
from graph.language import pages
from graph.language.describe import field, object_type
from graph.language.enums import expose
from graph.language.pages import After, Connection, First
from graph.language.rows import reader
from graph.language.scalars import JSON
from models import agents
from models.agents.declared import without_secrets
from models.organism import applying
from models.store.database import Row
from models.threads import conversations
from models.threads.conversations import ThreadStatus

ChangeKind = expose(applying.ChangeKind)
OrganismPart = expose(applying.OrganismPart)


@object_type
class Capability:
    """Something that agents of the organism are able to do."""

    row: Private[Row]
    name: str
    """What it is called; unique among capabilities."""
    description: str
    """What it is; empty when nobody has said."""
    schema: JSON
    """The JSON Schema (Draft 2020-12) of what it takes."""
    example: JSON | None
    """Something that fits; null when none is declared."""

    @field
    async def agents(self, info: Info) -> list[Agent]:
        """List the agents that have it, by name; at most 500."""
        return [Agent.of(row) for row in await info.context.load(applying.able, self.row["name"])]

    @classmethod
    def of(cls, row: Row) -> "Capability":
        """Shape a declared capability."""
        return _capability(row)


_capability = reader(
    Capability,
    schema=lambda row: orjson.loads(row["schema"]),
    example=lambda row: orjson.loads(row["example"]) if row["example"] is not None else None,
)


@object_type
class DeclaredAgent:
    """An agent, and what operators may read of its declaration beside its peers and payload types."""

    row: Private[Row]

    @field
    def agent(self) -> Agent:
        """Give the agent."""
        return Agent.of(self.row)

    @field
    def description(self) -> str:
        """Give its description in the file; that of the agent may have been edited since."""
        return str(self.row["declared"]["description"])

    @field
    def endpoint(self) -> str | None:
        """Say where its messages are posted: scheme, host, port and path, without credentials and query.

        Null for one that fetches them by `inbox`.
        """
        endpoint = self.row["declared"]["endpoint"]
        return without_secrets(endpoint) if endpoint else None

    @field
    async def capabilities(self, info: Info) -> list[Capability]:
        """List what it is able to do; at most 50."""
        names = self.row["declared"]["capabilities"]
        found = await asyncio.gather(*(info.context.find(applying.capabilities, each) for each in names))
        return [Capability.of(row) for row in found if row]


_declared_agent = reader(DeclaredAgent)


@object_type
class AgentStateCount:
    """How many agents are in one state."""

    state: AgentState  # type: ignore[valid-type]  # mypy takes an exposed enum for a variable
    """The state."""
    agents: int
    """How many agents and listeners of the organism are in it."""


@object_type
class OrganismCounts:
    """How much of everything the organism has."""

    row: Private[Row]
    agents: int
    """Agents declared."""
    listeners: int
    """Plain listeners declared."""
    queued_messages: int
    """Messages to them that are not delivered yet."""
    capabilities: int
    """Capabilities declared."""
    alert_rules: int
    """Alert rules declared."""

    @field
    def states(self) -> list[AgentStateCount]:
        """Count agents and listeners by state; each state once."""
        return [AgentStateCount(state=state, agents=count) for state, count in self.row["states"].items()]

    @field
    async def active_threads(self) -> int:
        """Count the threads that are ACTIVE, of all agents."""
        return await conversations.count(status=ThreadStatus.ACTIVE, participants=())


_counts = reader(OrganismCounts)


@object_type
class Setting:
    """One setting of the server that answers."""

    name: str
    """Its name, which is that of its environment variable."""
    value: str | None
    """What it is set to; null for nothing, and for a secret. Of a URL, without credentials and query."""
    secret: bool
    """Whether it is a secret, and so never shown."""
    given: bool
    """Whether it has a value."""
    description: str
    """What it means."""


@object_type
class OrganismChange:
    """Something that applying a file has changed."""

    row: Private[Row]
    part: OrganismPart  # type: ignore[valid-type]  # mypy takes an exposed enum for a variable
    """What kind of part."""
    name: str
    """What the part is called."""
    kind: ChangeKind  # type: ignore[valid-type]  # mypy takes an exposed enum for a variable
    """What became of it."""

    @field
    def fields(self) -> list[str]:
        """List what is declared differently of a part that is CHANGED, as its keys are spelled; at most 20."""
        return [to_camel_case(each) for each in self.row["fields"]]

    @classmethod
    def of(cls, row: Row) -> "OrganismChange":
        """Shape a change."""
        return _change(row)


_change = reader(OrganismChange)


@object_type
class Organism:
    """The agents that work together, as their file declares them, and the server that runs them."""

    row: Private[Row | None]

    @field
    def name(self) -> str | None:
        """Say what it is called; null while no file has been applied."""
        return self.row["name"] if self.row else None

    @field
    def description(self) -> str:
        """Say what it is for; empty when nobody has said."""
        return self.row["description"] if self.row else ""

    @field
    def revision(self) -> int:
        """Say how often a file that declared something else has been applied; 0 while none has."""
        return self.row["revision"] if self.row else 0

    @field
    def applied_at(self) -> datetime | None:
        """Say when that was last; null while none has been applied."""
        return self.row["applied_at"] if self.row else None

    @field
    def last_changes(self) -> list[OrganismChange]:
        """List what that changed, by kind of part and name; at most 2,000."""
        return [OrganismChange.of(each) for each in self.row["changes"]] if self.row else []

    @field
    async def agents(self, first: First = None, after: After = None) -> Connection[DeclaredAgent]:
        """List its agents by name, those that have been retired left out."""
        wanted = pages.asked("declared agents", agents.BY_NAME, first=first, after=after)
        members = self.row["members"] if self.row else []
        page = await applying.page(members, window=wanted.window)

        async def count() -> int:
            return len(members)

        return wanted.connection(page, _declared_agent, count)

    @field
    async def counts(self) -> OrganismCounts:
        """Count what it has, and what it is doing."""
        return _counts(await applying.counts(self.row))

    @field
    def configuration(self, info: Info) -> list[Setting]:
        """List the settings of the server that answers, secrets left out; at most 200."""
        return [Setting(**each) for each in info.context.services.configuration]


# ---------------------------------------------------------------- reloadOrganism


@object_type
class ReloadOrganismPayload:
    """The organism as its file declares it now."""

    organism: Organism
    """The organism."""
    changes: list[OrganismChange]
    """What is different now, by kind of part and name: empty when all was so already; at most 2,000."""


# ---------------------------------------------------------------- stopServer


@object_type
class StopServerPayload:
    """The server is about to stop."""

    processes: int
    """How many serving processes stop: all of this server's."""
