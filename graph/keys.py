"""API keys as clients see them."""

from datetime import datetime
from typing import TYPE_CHECKING, Annotated, ClassVar

import strawberry
from strawberry import ID, Private

import graph.agents
from auth.permissions import Permission, signed_in
from graph.context import Context, Info
from graph.language.describe import field, input_type, object_type
from graph.language.enums import expose
from graph.language.nodes import Node, key_of
from graph.language.rows import reader
from models import agents, keys
from models.store.database import Key, Row

if TYPE_CHECKING:
    from graph.agents import Agent, AgentBy

ApiKeyScope = expose(keys.ApiKeyScope)
LazyAgent = Annotated["Agent", strawberry.lazy("graph.agents")]
LazyAgentBy = Annotated["AgentBy", strawberry.lazy("graph.agents")]


@object_type
class ApiKey(Node):
    """A key by which a service signs in. Only its owner and admins see it."""

    readable_by: ClassVar[Permission] = signed_in

    key: Private[Key]
    agent_key: Private[Key | None]
    name: str
    """What it is for."""
    prefix: str
    """How its secret begins, to tell keys apart."""
    scopes: list[ApiKeyScope]  # type: ignore[valid-type]  # mypy takes an exposed enum for a variable
    """What it may do; at most 4."""
    created_at: datetime
    """When it was minted."""
    expires_at: datetime | None
    """When it ends; null: never."""
    last_used_at: datetime | None
    """When it was last used, to the minute; null when never."""
    revoked_at: datetime | None
    """When it was revoked; null while it is good."""

    @field
    async def agent(self, info: Info) -> LazyAgent | None:
        """Give the agent that speaks for itself by this key; null for a key of no agent."""
        row = await info.context.find(agents.by_keys, self.agent_key)
        return graph.agents.Agent.of(row) if row else None

    @classmethod
    def of(cls, row: Row) -> "ApiKey":
        """Shape a stored key."""
        return _api_key(row)

    @classmethod
    async def find_node(cls, context: Context, key: str) -> "ApiKey | None":
        """Find one of one's own, or anybody's for an admin."""
        row = await keys.find(key_of(key))
        if row is None or not (context.viewer.is_admin or row["owner"] == context.viewer.user):
            return None
        return cls.of(row)


_api_key = reader(ApiKey, agent_key=lambda row: row.get("agent"))


# ---------------------------------------------------------------- createApiKey


@input_type
class CreateApiKeyInput:
    """A new key."""

    name: str
    """What it is for, 1 to 100 characters."""
    scopes: list[ApiKeyScope]  # type: ignore[valid-type]  # mypy takes an exposed enum for a variable
    """What it may do, 1 to 4 scopes."""
    expires_at: datetime | None = None
    """When it ends; never, when left out."""
    agent: LazyAgentBy | None = None
    """The agent that is to speak for itself by it: yours, or any for an admin. Of threads and messages it reads its
    own alone, whatever its scopes."""


@object_type
class CreateApiKeyPayload:
    """The new key."""

    api_key: ApiKey
    """The key as it is listed from now on."""
    secret: str
    """The secret to show as a Bearer token. It is shown this once and kept nowhere."""


# ---------------------------------------------------------------- revokeApiKey


@input_type
class RevokeApiKeyInput:
    """Which key to revoke."""

    id: ID
    """The key's id."""


@object_type
class RevokeApiKeyPayload:
    """The key is dead."""

    api_key: ApiKey
    """The key, revoked."""
