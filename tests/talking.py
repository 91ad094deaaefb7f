"""Agents that talk: declared as the organism's file would, with keys of their own, sending and receiving."""

import json
from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from auth.passwords import Passwords
from auth.registration import Registration
from models.store.database import Database, Handle
from models.users import Role
from tests import factories
from tests.client import Client
from tests.factories import PASSWORD, Person

CREATE = "mutation ($name: String!) { createAgent(input: {name: $name, discipline: CREATIVE}) { agent { id } } }"
MESSAGE = """
id payloadType payload depth senderName createdAt sender { name } recipient { name } thread { id key status }
parent { id } delivery { status attempts deliveredAt leasedUntil error }
"""
INJECT = f"mutation ($input: InjectMessageInput!) {{ injectMessage(input: $input) {{ message {{ {MESSAGE} }} }} }}"
SEND = f"mutation ($input: SendMessageInput!) {{ sendMessage(input: $input) {{ message {{ {MESSAGE} }} }} }}"
INBOX = f"""
subscription ($agent: AgentBy!, $maxUnacknowledged: Int! = 10) {{
  inbox(agent: $agent, maxUnacknowledged: $maxUnacknowledged) {{ lease leaseExpiresAt attempt message {{ {MESSAGE} }} }}
}}
"""
ACKNOWLEDGE = f"""
mutation ($message: ID!, $lease: ID!) {{
  acknowledgeMessage(input: {{message: $message, lease: $lease}}) {{ message {{ {MESSAGE} }} }}
}}
"""
FAIL = f"""
mutation ($message: ID!, $lease: ID!, $error: String!) {{
  failMessage(input: {{message: $message, lease: $lease, error: $error}}) {{ message {{ {MESSAGE} }} }}
}}
"""
PAUSE = "mutation ($agent: AgentBy!) { pauseAgent(input: {agent: $agent}) { agent { name state queueDepth } } }"
RESUME = "mutation ($agent: AgentBy!) { resumeAgent(input: {agent: $agent}) { agent { name state queueDepth } } }"
KILL = """
mutation ($thread: ID!, $reason: String) {
  killThread(input: {thread: $thread, reason: $reason}) { thread { id status closedReason closedAt } }
}
"""
COMPLETE = """
mutation ($thread: ID!, $reason: String, $failed: Boolean! = false) {
  completeThread(input: {thread: $thread, reason: $reason, failed: $failed}) { thread { id status closedReason } }
}
"""
STATES = """
query ($agent: AgentBy!) {
  agent(by: $agent) { state queueDepth currentThread { id } lastActivityAt messageCount }
}
"""
TASK = {"type": "object", "properties": {"n": {"type": "integer"}}, "required": ["n"], "additionalProperties": False}


@dataclass
class Cast:
    """The agents of a test, and an operator; `clients` speak for the agents by their own keys."""

    boss: Person
    handle: Handle
    ids: dict[str, str] = field(default_factory=dict)
    clients: dict[str, Client] = field(default_factory=dict)

    async def add(self, *names: str) -> None:
        """Register agents, each with a key of its own."""
        for name in names:
            made = await self.boss.client.query(CREATE, name=name)
            self.ids[name] = made["createAgent"]["agent"]["id"]
            self.clients[name] = await factories.api_key(self.boss, "READ", agent={"name": name})

    async def declare(
        self,
        name: str,
        *,
        peers: tuple[str, ...] = (),
        types: Mapping[str, object] | None = None,
        endpoint: str | None = None,
        retired_at: datetime | None = None,
    ) -> None:
        """Declare what the organism's file would."""
        found = {row["name"]: row["_id"] async for row in self.handle["agents"].find({"deleted_at": None})}
        said = {
            "is_agent": True,
            "description": "",
            "peers": [found[each] for each in peers],
            "payload_types": [
                {"name": kind, "description": "", "schema": json.dumps(schema), "example": None}
                for kind, schema in (types or {}).items()
            ],
            "endpoint": endpoint,
            "capabilities": [],
            "retired_at": retired_at,
        }
        await self.handle["agents"].update_one({"name": name}, {"$set": {"declared": said}})

    async def inject(self, to: str, payload: object, **given: object) -> dict[str, Any]:
        """Send a message as the operator."""
        values = {"to": {"name": to}, "payloadType": "task", "payload": payload, **given}
        message: dict[str, Any] = (await self.boss.client.query(INJECT, input=values))["injectMessage"]["message"]
        return message

    async def send(self, sender: str, to: str, payload: object, **given: object) -> dict[str, Any]:
        """Send a message as an agent."""
        values = {"to": {"name": to}, "payloadType": "task", "payload": payload, **given}
        data = await self.clients[sender].query(SEND, input=values)
        message: dict[str, Any] = data["sendMessage"]["message"]
        return message

    @asynccontextmanager
    async def inbox(self, name: str, *, most: int = 10, client: Client | None = None) -> AsyncIterator["Inbox"]:
        """Receive an agent's messages; by default over its own key."""
        speaking = client or self.clients[name]
        async with speaking.subscribe(INBOX, agent={"name": name}, maxUnacknowledged=most) as events:
            yield Inbox(speaking, events)

    async def look(self, name: str) -> dict[str, Any]:
        """Read what an agent is doing."""
        found: dict[str, Any] = (await self.boss.client.query(STATES, agent={"name": name}))["agent"]
        return found

    async def pause(self, name: str) -> dict[str, Any]:
        """Pause an agent."""
        found: dict[str, Any] = (await self.boss.client.query(PAUSE, agent={"name": name}))["pauseAgent"]["agent"]
        return found

    async def resume(self, name: str) -> dict[str, Any]:
        """Resume an agent."""
        found: dict[str, Any] = (await self.boss.client.query(RESUME, agent={"name": name}))["resumeAgent"]["agent"]
        return found


async def apart(store: Database, client: Client, name: str) -> Cast:
    """Give an operator alone on a database of that name, emptied, over a client of a server on it."""
    handle = store.client[name]
    await Database(store.client, handle).empty(keep=["sequences"])
    async with Passwords("cheap") as passwords:
        made = await Registration(passwords).create(
            email="boss@example.com", name="Boss", password=PASSWORD, role=Role.ADMIN, now=datetime.now(UTC)
        )
    row = await store.handle["users"].find_one({"_id": made["_id"]})
    assert row is not None
    await handle["users"].insert_one(row)
    return Cast(await factories.sign_in(client, email="boss@example.com"), handle)


@dataclass
class Inbox:
    """An inbox that is being read."""

    client: Client
    events: AsyncGenerator[Any, None]

    async def next(self) -> dict[str, Any]:
        """Give the next item."""
        item: dict[str, Any] = (await anext(self.events))["inbox"]
        return item

    async def acknowledge(self, item: Mapping[str, Any]) -> dict[str, Any]:
        """Say that an item was taken."""
        return await acknowledge(self.client, item)

    async def take(self) -> Any:  # any JSON
        """Take the next item, and give its payload."""
        item = await self.next()
        await self.acknowledge(item)
        return item["message"]["payload"]


async def acknowledge(client: Client, item: Mapping[str, Any]) -> dict[str, Any]:
    """Say that an item was taken."""
    data = await client.query(ACKNOWLEDGE, message=item["message"]["id"], lease=item["lease"])
    message: dict[str, Any] = data["acknowledgeMessage"]["message"]
    return message


async def fail(client: Client, item: Mapping[str, Any], error: str = "No.") -> dict[str, Any]:
    """Say that an item could not be taken."""
    data = await client.query(FAIL, message=item["message"]["id"], lease=item["lease"], error=error)
    message: dict[str, Any] = data["failMessage"]["message"]
    return message
