"""Agents as clients see them."""

import asyncio
from collections.abc import Sequence
from datetime import datetime
from functools import partial
from typing import TYPE_CHECKING, Annotated, ClassVar

import strawberry
from strawberry import ID, UNSET, Maybe, Private

import graph.runs.recorded
import graph.threads
import graph.users
from auth.permissions import Permission, operators, readers
from graph.alerts import LIST, Alert, Discipline
from graph.context import Context, Info
from graph.language import nodes, pages
from graph.language.describe import changes, input_type, object_type, one_of, reading
from graph.language.enums import expose
from graph.language.nodes import Node
from graph.language.pages import After, Connection, First
from graph.language.rows import reader
from graph.language.scalars import BigInt
from graph.payloads import PayloadType
from graph.ratings import Rating, RatingSummary
from graph.runs.metrics import RunDay, RunMetrics, timeline
from graph.runs.recorded import RunsChosen
from graph.usage.figures import Days, From, Hours, To, UsageDay, UsageHour, UsageTotals, figures
from models import agents, ratings, users
from models.alerts import raised
from models.errors import BadInput, NotFound
from models.runs.figures import Owner
from models.store.database import Key, Row
from models.store.pages import Order
from models.threads import activity
from models.usage import days as kept

if TYPE_CHECKING:
    from graph.runs.recorded import AgentVersion, Run
    from graph.threads import Thread
    from graph.users import User

AgentStatus = expose(agents.AgentStatus)
AuditStatus = expose(agents.AuditStatus)
AgentOrderField = expose(agents.AgentOrderField)
Direction = expose(agents.Direction)
AgentState = expose(activity.AgentState)


@object_type
class Agent(Node):
    """An AI agent of the company."""

    readable_by: ClassVar[Permission] = readers

    key: Private[Key]
    row: Private[Row]
    name: str
    """What it is called; unique among agents."""
    description: str
    """What it does; empty when nobody has said."""
    project: str | None
    """The project it belongs to; null for none."""
    discipline: Discipline | None  # type: ignore[valid-type]  # mypy takes an exposed enum for a variable
    """The part of the company it works for; null when the collector registered it and nobody has said."""
    status: AgentStatus  # type: ignore[valid-type]  # mypy takes an exposed enum for a variable
    """Where it stands in its life."""
    audit_status: AuditStatus  # type: ignore[valid-type]  # mypy takes an exposed enum for a variable
    """Whether it has passed the audit."""
    tags: list[str]
    """Words to find it by; at most 20."""
    userbase: str | None
    """Who uses it; null when nobody has said."""
    department: str | None
    """The department it serves; null when nobody has said."""
    contact_person: str | None
    """Whom to ask about it; null when nobody has said."""
    created_at: datetime
    """When it was registered."""
    updated_at: datetime
    """When what is written about it last changed; use and ratings do not count."""

    @reading("usage", within=UsageTotals)
    def usage(self) -> UsageTotals:
        """Give everything since the agent is known."""
        return UsageTotals.of_lifetime(self.row["usage"])

    @reading("rating")
    def rating(self) -> RatingSummary:
        """Give what people think of it."""
        return RatingSummary.of(self.row)

    @reading("declared.is_agent")
    def is_agent(self) -> bool:
        """Whether it is an agent; false for a plain listener, which is declared as one and calls no model."""
        return bool(self._declared.get("is_agent", True))

    @reading("declared.peers")
    async def peers(self, info: Info) -> list["Agent"]:
        """Give the agents that it may send messages to, as declared; at most 50."""
        keys = self._declared.get("peers", ())
        return [
            Agent.of(row) for row in await asyncio.gather(*(info.context.load(agents.by_keys, key) for key in keys))
        ]

    @reading("declared.payload_types")
    def payload_types(self) -> list[PayloadType]:
        """Give what may be sent to it, as declared; at most 50."""
        return [PayloadType.of(each) for each in self._declared.get("payload_types", ())]

    @reading("declared.retired_at")
    def retired_at(self) -> datetime | None:
        """Give when it was taken out of the organism's file: nothing can be sent to it then; null otherwise."""
        at: datetime | None = self._declared.get("retired_at")
        return at

    @reading()
    async def state(self, info: Info) -> AgentState:  # type: ignore[valid-type]  # mypy takes it for a variable
        """Say what it is doing."""
        return activity.state(await info.context.find(activity.by_agents, self.key))

    @reading()
    async def queue_depth(self, info: Info) -> int:
        """Count the messages that it has not answered yet: those that wait, and those that it holds."""
        row = await info.context.find(activity.by_agents, self.key)
        return row["queued"] if row else 0

    @reading()
    async def current_thread(self, info: Info) -> Annotated["Thread", strawberry.lazy("graph.threads")] | None:
        """Give the thread of the message that was handed to it last.

        Null while it holds none, and for an agent's key where that agent takes no part in it.
        """
        row = await info.context.find(activity.by_agents, self.key)
        return await graph.threads.find(info, row["current_thread"]) if row else None

    @reading()
    async def last_activity_at(self, info: Info) -> datetime | None:
        """Give when it last sent a message, was handed one or answered one; null when it never has."""
        row = await info.context.find(activity.by_agents, self.key)
        return row["last_activity_at"] if row else None

    @reading()
    async def message_count(self, info: Info) -> BigInt:
        """Count the messages that it has sent or been sent."""
        row = await info.context.find(activity.by_agents, self.key)
        return BigInt(row["messages"] if row else 0)

    @reading("declared.endpoint")
    async def endpoint_secret(self, info: Info) -> str | None:
        """Give the secret that its endpoint checks signatures with, as Standard Webhooks has it.

        Null without an endpoint, and for whoever is no operator.
        """
        shown = operators.test(info.context.viewer) and self._declared.get("endpoint")
        return info.context.services.signing.secret(self.key, of="agent") if shown else None

    @reading("owner")
    async def owner(self, info: Info) -> Annotated["User", strawberry.lazy("graph.users")] | None:
        """Who may change it, beside admins; null while nobody has claimed it."""
        row = await info.context.find(users.by_keys, self.row["owner"])
        return graph.users.User.of(row) if row else None

    @reading()
    async def usage_timeline(self, info: Info, days: Days = 30, from_: From = None, to: To = None) -> list[UsageDay]:
        """Its use day by day, ascending, days without use as zeros; at most 366 days."""
        today = kept.today(info.context.now, info.context.services.zone)
        first, last = kept.window(days, from_, to, today=today)
        wanted = figures(info)
        return UsageDay.of(await info.context.load(kept.timelines, self.key, first=first, last=last, figures=wanted))

    @reading()
    async def usage_by_hour(self, info: Info, hours: Hours = 24) -> list[UsageHour]:
        """Its use hour by hour up to now, ascending, hours without use as zeros; at most 744 hours."""
        since, count = kept.hours_back(hours, now=info.context.now)
        return UsageHour.of(await info.context.load(kept.hourly, self.key, since=since, hours=count))

    @reading("rating")
    async def ratings(self, info: Info, first: First = None, after: After = None) -> Connection[Rating]:
        """Its ratings, newest first."""
        wanted = pages.asked("ratings", ratings.NEWEST, first=first, after=after)
        page = await info.context.load(ratings.newest, self.key, window=wanted.window)
        return wanted.connection(page, Rating.of, RatingSummary.of(self.row).total)

    @reading()
    async def alerts(self, info: Info, first: First = None, after: After = None) -> Connection[Alert]:
        """Its alerts, newest first."""
        wanted = pages.asked(LIST, raised.NEWEST, first=first, after=after)
        page = await info.context.load(raised.newest, self.key, window=wanted.window)
        return wanted.connection(page, Alert.of, partial(info.context.count, raised.counts, self.key))

    @reading()
    async def versions(
        self, info: Info, first: First = None, after: After = None
    ) -> Connection[Annotated["AgentVersion", strawberry.lazy("graph.runs.recorded")]]:
        """List its versions, newest first."""
        return await graph.runs.recorded.versions_of(info, self.key, first=first, after=after)

    @reading()
    async def runs(
        self, info: Info, filter: RunsChosen = None, first: First = None, after: After = None
    ) -> Connection[Annotated["Run", strawberry.lazy("graph.runs.recorded")]]:
        """List the runs of all its versions, newest first; those that were removed since are not among them."""
        return await graph.runs.recorded.runs_of(info, self.key, chosen=filter, first=first, after=after)

    @reading()
    async def run_metrics(self, info: Info) -> RunMetrics:
        """Give what the runs of all its versions come to."""
        return await RunMetrics.of_agent(info, self.key)

    @reading()
    async def run_timeline(self, info: Info, days: Days = 30, from_: From = None, to: To = None) -> list[RunDay]:
        """Its runs day by day, ascending, days without any as zeros; at most 366 days."""
        return await timeline(info, (Owner.agent(self.key),), days, from_, to)

    @property
    def _declared(self) -> Row:
        return self.row.get("declared") or {}

    @classmethod
    def of(cls, row: Row) -> "Agent":
        """Shape a stored agent."""
        return _agent(row)

    @classmethod
    async def find_node(cls, context: Context, key: str) -> "Agent | None":  # noqa: ARG003  # some types ask the context
        """Find one by its key."""
        row = await agents.find(nodes.key_of(key))
        return cls.of(row) if row else None


_agent = reader(Agent)


# ---------------------------------------------------------------- what selects


@one_of
class AgentBy:
    """Which agent: by id or by name, exactly one of them."""

    id: ID | None = UNSET
    """Its id."""
    name: str | None = UNSET
    """Its name."""

    def ref(self, path: str) -> agents.Ref:
        """Give what names the agent. Raises `BadInput` for an id that cannot be read."""
        if isinstance(self.id, str):
            return nodes.decode(self.id, "Agent", field=f"{path}.id")
        if isinstance(self.name, str):
            return self.name.strip()
        raise BadInput.at(path, "Give exactly one of `id` and `name`.")


async def key_of(by: AgentBy, *, field: str) -> Key:
    """Find the key of the agent that is meant. Raises `NotFound`."""
    key: Key = (await agents.require(by.ref(field), field=field))["_id"]
    return key


async def keys_of(chosen: Sequence[AgentBy], *, field: str) -> frozenset[Key]:
    """Find the keys of some agents, at most 100. Raises `NotFound` for the first that is not there."""
    if len(chosen) > pages.MOST:
        raise BadInput.at(field, f"At most {pages.MOST} agents.")
    refs = [by.ref(f"{field}.{place}") for place, by in enumerate(chosen)]
    found = await agents.by_refs(refs)
    for place, ref in enumerate(refs):
        if ref not in found:
            raise NotFound("There is no such agent.", field=f"{field}.{place}")
    return frozenset(found.values())


@input_type
class AgentFilter:
    """Which agents; what is left out does not matter."""

    status: list[AgentStatus] | None = None  # type: ignore[valid-type]  # mypy takes an exposed enum for a variable
    """One of these."""
    audit_status: AuditStatus | None = None  # type: ignore[valid-type]  # mypy takes an exposed enum for a variable
    """This one."""
    discipline: list[Discipline] | None = None  # type: ignore[valid-type]  # mypy takes an exposed enum for a variable
    """One of these."""
    project: str | None = None
    """Exactly this project."""
    tag: str | None = None
    """Having this tag."""
    owner: ID | None = None
    """Owned by this person."""
    unclaimed: bool | None = None
    """True: without owner; false: with one."""

    def read(self, search: str | None = None) -> agents.Filter:
        """Turn it into what the registry understands."""
        return agents.Filter(
            search=search,
            status=self.status,
            audit_status=self.audit_status,
            discipline=self.discipline,
            project=self.project,
            tag=self.tag,
            owner=nodes.decode(self.owner, "User", field="filter.owner") if self.owner else None,
            unclaimed=self.unclaimed,
        )


@input_type
class AgentOrder:
    """In what order."""

    field: AgentOrderField  # type: ignore[valid-type]  # mypy takes an exposed enum for a variable
    """By what."""
    direction: Direction = agents.Direction.ASC  # type: ignore[valid-type]  # mypy takes an exposed enum for a variable
    """Which way."""

    def read(self) -> Order:
        """Turn it into what the registry understands."""
        return Order(agents.ORDERS[self.field], descending=self.direction is agents.Direction.DESC)


# ---------------------------------------------------------------- createAgent


@input_type
class CreateAgentInput:
    """A new agent."""

    name: str
    """What it is called: 1 to 200 characters, unique among agents."""
    description: str = ""
    """What it does, at most 10,000 characters."""
    project: str | None = None
    """The project it belongs to, at most 100 characters."""
    discipline: Discipline | None = None  # type: ignore[valid-type]  # mypy takes an exposed enum for a variable
    """The part of the company it works for; required when a person registers it."""
    status: AgentStatus = agents.AgentStatus.ACTIVE  # type: ignore[valid-type]  # as above
    """Where it stands in its life."""
    audit_status: AuditStatus = agents.AuditStatus.NOT_AUDITED  # type: ignore[valid-type]  # as above
    """Whether it has passed the audit."""
    tags: list[str] = strawberry.field(default_factory=list)
    """Words to find it by: at most 20, of 1 to 50 characters."""
    userbase: str | None = None
    """Who uses it, at most 200 characters."""
    department: str | None = None
    """The department it serves, at most 100 characters."""
    contact_person: str | None = None
    """Whom to ask about it, at most 200 characters."""

    def values(self) -> dict[str, object]:
        """Give what is written about an agent."""
        return {name: getattr(self, name) for name in agents.AgentFields.model_fields}


@object_type
class CreateAgentPayload:
    """The new agent."""

    agent: Agent
    """It is owned by whoever registered it; by nobody when an API key did."""


# ---------------------------------------------------------------- updateAgent


@input_type
class UpdateAgentInput:
    """What to change about an agent: what is left out stays, null clears, a value sets."""

    agent: AgentBy
    """Which agent."""
    name: Maybe[str | None]
    """What it is called."""
    description: Maybe[str | None]
    """What it does."""
    project: Maybe[str | None]
    """The project it belongs to."""
    discipline: Maybe[Discipline | None]  # type: ignore[valid-type]  # mypy takes an exposed enum for a variable
    """The part of the company it works for."""
    status: Maybe[AgentStatus | None]  # type: ignore[valid-type]  # mypy takes an exposed enum for a variable
    """Where it stands in its life."""
    audit_status: Maybe[AuditStatus | None]  # type: ignore[valid-type]  # mypy takes an exposed enum for a variable
    """Whether it has passed the audit."""
    tags: Maybe[list[str] | None]
    """Words to find it by; the list replaces the old one."""
    userbase: Maybe[str | None]
    """Who uses it."""
    department: Maybe[str | None]
    """The department it serves."""
    contact_person: Maybe[str | None]
    """Whom to ask about it."""

    def values(self) -> dict[str, object]:
        """Give what changes about an agent."""
        return changes(self)


@object_type
class UpdateAgentPayload:
    """The agent, changed."""

    agent: Agent
    """The agent."""


# ---------------------------------------------------------------- deleteAgent


@input_type
class DeleteAgentInput:
    """Which agent to delete."""

    agent: AgentBy
    """The agent."""


@object_type
class DeleteAgentPayload:
    """The agent is gone, and its name free."""

    deleted_id: ID
    """The id that it had."""


# ---------------------------------------------------------------- claimAgent


@input_type
class ClaimAgentInput:
    """Which agent to take over."""

    agent: AgentBy
    """An agent that nobody owns."""


@object_type
class ClaimAgentPayload:
    """The agent is yours."""

    agent: Agent
    """The agent."""
