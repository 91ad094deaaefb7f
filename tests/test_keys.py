"""API keys: shown once, kept as a hash, good for their scopes and their time."""

import asyncio
import base64
import hashlib
from collections.abc import Callable
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
MISSING = base64.b64encode(b"ApiKey:" + b"65" * 12).decode()


async def mint(person: Person, *scopes: str) -> tuple[Client, str]:
    """Make a key; gives the client that shows it, and its id."""
    data = await person.client.query(CREATE_KEY, input={"name": "a key", "scopes": list(scopes)})
    return person.client.with_token(data["createApiKey"]["secret"]), data["createApiKey"]["apiKey"]["id"]


async def test_a_secret_is_shown_once_and_kept_nowhere(user: Person, store: Database) -> None:
    key, _ = await mint(user, "READ")
    await key.query(READ)

    seen = 0
    for name in await store.handle.list_collection_names():
        async for document in store.handle[name].find({}):
            seen += 1
            assert str(key.token) not in str(document)
            assert str(key.token).split("_", 2)[2] not in str(document)
    assert seen > 0
    (stored,) = await database.collection(ApiKey).find({}).to_list(2)
    assert stored["hash"] == hashlib.sha256(str(key.token).encode()).hexdigest()
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

    async with asyncio.timeout(10):
        # Changed behind the server's back: it looks again within a second.
        while not (reply := await key.execute(READ)).codes:
            pass
    assert reply.codes == ["UNAUTHENTICATED"]


async def test_a_key_of_someone_shut_out_is_refused(user: Person, admin: Person) -> None:
    key, _ = await mint(user, "READ")
    await key.query(READ)

    change = "mutation ($input: UpdateUserInput!) { updateUser(input: $input) { user { active } } }"
    await admin.client.query(change, input={"user": user.id, "active": False})

    assert (await refusal(key, READ)).code == "UNAUTHENTICATED"


async def test_every_fault_of_a_key_is_told_at_once(user: Person) -> None:
    values = {"name": "", "scopes": [], "expiresAt": "2020-01-01T00:00:00Z"}

    error = await refusal(user.client, CREATE_KEY, input=values)

    assert error.code == "BAD_USER_INPUT"
    paths = [each["path"] for each in error.errors[0]["extensions"]["fields"]]
    assert sorted(paths) == [["expiresAt"], ["name"], ["scopes"]]
    assert (await user.client.query(LIST))["apiKeys"] == []


async def test_a_key_does_what_its_scopes_say_and_no_more(admin: Person) -> None:
    attempts = {
        "COLLECT": "mutation { collectUsage(input: {events: []}) { accepted } }",
        "READ": READ,
        "MANAGE": "{ alertRules { id } }",
    }

    for scope in (*attempts, "OPERATE"):
        key, _ = await mint(admin, scope)
        for needed, document in attempts.items():
            codes = (await key.execute(document)).codes
            assert ("FORBIDDEN" in codes) == (scope != needed), (scope, needed, codes)
    both, _ = await mint(admin, "COLLECT", "READ", "READ")
    assert (await both.query(READ))["agents"]
    assert (await admin.client.query(LIST))["apiKeys"][0]["scopes"] == ["COLLECT", "READ"]


async def test_what_only_admins_mint_ends_with_their_role(admin: Person, client: Client) -> None:
    await factories.sign_in_admin(client, email="second@example.com")
    key, _ = await mint(admin, "READ", "MANAGE")
    rules, change = (
        "{ alertRules { id } }",
        "mutation ($input: UpdateUserInput!) { updateUser(input: $input) { user { id } } }",
    )
    assert (await key.execute(rules)).codes == []

    await admin.client.query(change, input={"user": admin.id, "role": "USER"})

    assert (await key.execute(rules)).codes == ["FORBIDDEN"]
    assert (await key.query(READ))["agents"]


@pytest.mark.parametrize("change", [lambda s: s[:-1], lambda s: s + "x", lambda s: s.swapcase(), lambda s: s[:12]])
async def test_a_secret_is_good_only_as_it_was_given(user: Person, change: Callable[[str], str]) -> None:
    key, _ = await mint(user, "READ")

    assert (await refusal(key.with_token(change(str(key.token))), READ)).code == "UNAUTHENTICATED"


@pytest.mark.parametrize(
    ("values", "code", "field"),
    [
        ({"name": "", "scopes": ["READ"]}, "BAD_USER_INPUT", "name"),
        ({"name": "x" * 101, "scopes": ["READ"]}, "BAD_USER_INPUT", "name"),
        ({"name": "a\x00", "scopes": ["READ"]}, "BAD_USER_INPUT", "name"),
        ({"name": "x", "scopes": []}, "BAD_USER_INPUT", "scopes"),
        ({"name": "x", "scopes": ["READ"], "expiresAt": "2099-01-01T00:00:00"}, "BAD_USER_INPUT", "expiresAt"),
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
    assert len((await admin.client.query(LIST))["apiKeys"]) == 1


async def test_a_key_sees_and_revokes_no_keys(admin: Person) -> None:
    key, identifier = await mint(admin, "COLLECT", "READ", "MANAGE", "OPERATE")

    assert (await refusal(key, LIST)).code == "FORBIDDEN"
    assert (await refusal(key, REVOKE, id=identifier)).code == "FORBIDDEN"
    seen, missing = [(await key.execute(NODE, {"id": each})).body for each in (identifier, MISSING)]
    assert seen == missing
    assert (await key.query(READ))["agents"]


async def test_anothers_key_is_as_good_as_missing(user: Person, another_user: Person, admin: Person) -> None:
    key, identifier = await mint(user, "READ")

    for document in (REVOKE, NODE):
        anothers, missing = [
            (await another_user.client.execute(document, {"id": each})).body for each in (identifier, MISSING)
        ]
        assert anothers == missing
    error = await refusal(another_user.client, REVOKE, id=identifier)
    assert (error.code, error.field, error.message) == ("NOT_FOUND", "id", "There is no such key.")
    assert (await another_user.client.query(NODE, id=identifier))["node"] is None
    assert (await another_user.client.query(LIST))["apiKeys"] == []
    assert (await key.query(READ))["agents"]
    assert (await admin.client.query(NODE, id=identifier))["node"] == {"id": identifier}
    assert (await admin.client.query(REVOKE, id=identifier))["revokeApiKey"]
