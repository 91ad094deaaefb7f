"""API keys as clients see them."""

from datetime import datetime
from typing import ClassVar

from strawberry import ID, Private

from auth.permissions import Permission, signed_in
from graph.context import Context
from graph.language.describe import input_type, object_type
from graph.language.enums import expose
from graph.language.nodes import Node, key_of
from graph.language.rows import reader
from models import keys
from models.store.database import Key, Row

ApiKeyScope = expose(keys.ApiKeyScope)


@object_type
class ApiKey(Node):
    """A key by which a service signs in. Only its owner and admins see it."""

    readable_by: ClassVar[Permission] = signed_in

    key: Private[Key]
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


_api_key = reader(ApiKey)


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
