"""API keys as stored: prefix, hash, scopes, expiry, revocation."""

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Annotated, ClassVar, Final

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from models import text
from models.enums import DescribedEnum
from models.errors import NotFound
from models.store import database
from models.store.database import ASCENDING, IndexModel, Key, Row, Stored


class ApiKeyScope(DescribedEnum):
    """What an API key may do."""

    COLLECT = "COLLECT", "Report usage."
    READ = "READ", "Read agents, usage, ratings and alerts."
    MANAGE = "MANAGE", "Change any agent and alert rule. Minted by admins only, and ends with their role."
    OPERATE = "OPERATE", "Control running agents. Minted by admins only, and ends with their role."


# They work as long as the owner of their key is an admin.
FOR_ADMINS: Final = frozenset({ApiKeyScope.MANAGE, ApiKeyScope.OPERATE})


class ApiKeyFields(BaseModel):
    """What is written about a key; with an `agent` it is that agent's, which speaks for itself by it."""

    name: Annotated[str, text.Line(100)]
    scopes: Annotated[
        list[ApiKeyScope], Field(min_length=1, max_length=4), AfterValidator(lambda given: list(dict.fromkeys(given)))
    ]
    expires_at: datetime | None = None
    agent: Key | None = None

    model_config = ConfigDict(arbitrary_types_allowed=True)


class ApiKey(Stored, ApiKeyFields):
    """One key. The secret is not here, only the hash that recognises it."""

    prefix: str
    hash: str
    owner: Key
    created_at: datetime
    last_used_at: datetime | None = None
    revoked_at: datetime | None = None

    class Settings:
        """Where it is stored."""

        name = "api_keys"
        indexes: ClassVar[list[IndexModel]] = [
            IndexModel([("hash", ASCENDING)], unique=True, name="hash"),
            IndexModel([("owner", ASCENDING), ("_id", ASCENDING)], name="owner"),
        ]


MOST_SHOWN = 1000


# ---------------------------------------------------------------- reads


async def of_owner(owner: Key | None) -> Sequence[Row]:
    """Read the keys of a person, of everybody for None; newest first, 1,000 at the most."""
    where = {} if owner is None else {"owner": owner}
    rows: Sequence[Row] = await database.collection(ApiKey).find(where, {"hash": 0}).sort("_id", -1).to_list(MOST_SHOWN)
    return rows


async def find(key: Key) -> Row | None:
    """Find one."""
    return await database.collection(ApiKey).find_one({"_id": key}, {"hash": 0})


async def usable(digest: str, *, now: datetime) -> Row | None:
    """Find the key with this hash that is neither revoked nor expired, and whose owner is active; with their role."""
    rows = await database.aggregate(ApiKey, _usable({"hash": digest}, now=now))
    return rows[0] if rows else None


async def all_usable(keys: Sequence[Key], *, now: datetime) -> Mapping[Key, Row]:
    """Find those of many keys that are still good, each with its owner's role."""
    found = await database.aggregate(ApiKey, _usable({"_id": {"$in": list(keys)}}, now=now))
    return {row["_id"]: row for row in found}


# ---------------------------------------------------------------- writes


async def add(row: Row) -> None:
    """Store a key just minted."""
    await database.collection(ApiKey).insert_one(dict(row))


async def used(key: Key, *, now: datetime) -> None:
    """Note when a key was last used."""
    await database.collection(ApiKey).update_one({"_id": key}, {"$max": {"last_used_at": now}})


async def revoke(key: Key, *, only_owner: Key | None, now: datetime) -> Row:
    """Revoke a key; revoking it again changes nothing. Raises `NotFound` for another person's key as for none."""
    where = {"_id": key} if only_owner is None else {"_id": key, "owner": only_owner}
    rows = database.collection(ApiKey)
    await rows.update_one({**where, "revoked_at": None}, {"$set": {"revoked_at": now}})
    row = await rows.find_one(where, {"hash": 0})
    if row is None:
        raise NotFound("There is no such key.", field="id")
    return row


# ---------------------------------------------------------------- rules


def _usable(which: Row, *, now: datetime) -> list[Row]:
    return [
        {"$match": {**which, "revoked_at": None, "$or": [{"expires_at": None}, {"expires_at": {"$gt": now}}]}},
        {"$lookup": {"from": "users", "localField": "owner", "foreignField": "_id", "as": "person"}},
        {"$unwind": "$person"},
        {"$match": {"person.active": True}},
        {"$project": {"scopes": 1, "expires_at": 1, "last_used_at": 1, "agent": 1, "role": "$person.role"}},
    ]
