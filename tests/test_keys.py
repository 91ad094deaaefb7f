"""API keys: shown once, kept as a hash, good for their scopes and their time."""

from datetime import UTC, datetime, timedelta

import pytest

from models.keys import ApiKey
from models.store import database
from models.store.database import Database
from tests import factories
from tests.client import Client
from tests.factories import CREATE_KEY, Person
from tests.test_agents import refusal

LIST = "{ apiKeys { id name prefix scopes expiresAt lastUsedAt revokedAt } }"
REVOKE = "mutation ($id: ID!) { revokeApiKey(input: {id: $id}) { apiKey { revokedAt } } }"
NODE = "query ($id: ID!) { node(id: $id) { id } }"
READ = "{ agents { totalCount } }"


async def mint(person: Person, *scopes: str) -> tuple[Client, str]:
    """Make a key; gives the client that shows it, and its id."""
    data = await person.client.query(CREATE_KEY, input={"name": "a key", "scopes": list(scopes)})
    return person.client.with_token(data["createApiKey"]["secret"]), data["createApiKey"]["apiKey"]["id"]


async def test_a_secret_is_shown_once_and_kept_nowhere(user: Person, store: Database) -> None:
    key, _ = await mint(user, "READ")
    await key.query(READ)

    for name in await store.handle.list_collection_names():
        async for document in store.handle[name].find({}):
            assert str(key.token) not in str(document)
    (listed,) = (await user.client.query(LIST))["apiKeys"]
    assert str(key.token).startswith(listed["prefix"])
    assert len(listed["prefix"]) == 12
    assert listed["lastUsedAt"]


async def test_a_revoked_key_is_refused_from_the_next_request_on(user: Person) -> None:
    key, identifier = await mint(user, "READ")
    await key.query(READ)

    await user.client.query(REVOKE, id=identifier)

    assert (await refusal(key, READ)).code == "UNAUTHENTICATED"
    assert (await user.client.query(REVOKE, id=identifier))["revokeApiKey"]["apiKey"]["revokedAt"]


async def test_an_expired_key_is_refused(user: Person) -> None:
    future = (datetime.now(UTC) + timedelta(days=1)).isoformat()
    key = await factories.api_key(user, "READ", expiresAt=future)
    await key.query(READ)

    await database.collection(ApiKey).update_many({}, {"$set": {"expires_at": datetime.now(UTC)}})

    assert (await refusal(key, READ)).code == "UNAUTHENTICATED"


@pytest.mark.parametrize(
    ("values", "code", "field"),
    [
        ({"name": "", "scopes": ["READ"]}, "BAD_USER_INPUT", "name"),
        ({"name": "x", "scopes": []}, "BAD_USER_INPUT", "scopes"),
        ({"name": "x", "scopes": ["READ"], "expiresAt": "2020-01-01T00:00:00Z"}, "BAD_USER_INPUT", "expiresAt"),
        ({"name": "x", "scopes": ["READ", "MANAGE"]}, "FORBIDDEN", "scopes"),
        ({"name": "x", "scopes": ["OPERATE"]}, "FORBIDDEN", "scopes"),
    ],
)
async def test_a_key_that_may_not_be_is_refused(user: Person, values: dict[str, object], code: str, field: str) -> None:
    error = await refusal(user.client, CREATE_KEY, input=values)

    assert (error.code, error.field) == (code, field)
    assert (await user.client.query(LIST))["apiKeys"] == []


async def test_a_key_cannot_mint_keys(admin: Person) -> None:
    key, _ = await mint(admin, "COLLECT", "READ", "MANAGE", "OPERATE")

    assert (await refusal(key, CREATE_KEY, input={"name": "x", "scopes": ["READ"]})).code == "FORBIDDEN"


async def test_anothers_key_is_as_good_as_missing(user: Person, another_user: Person, admin: Person) -> None:
    key, identifier = await mint(user, "READ")

    assert (await refusal(another_user.client, REVOKE, id=identifier)).code == "NOT_FOUND"
    assert (await another_user.client.query(NODE, id=identifier))["node"] is None
    assert (await another_user.client.query(LIST))["apiKeys"] == []
    assert (await key.query(READ))["agents"]
    assert (await admin.client.query(NODE, id=identifier))["node"] == {"id": identifier}
    assert (await admin.client.query(REVOKE, id=identifier))["revokeApiKey"]
