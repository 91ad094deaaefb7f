"""The organism: what its file declares, how it is applied, and what is refused."""

import pytest

from models.store.database import Database
from tests.client import GraphQLErrors
from tests.factories import Person

CREATE = "mutation ($name: String!) { createAgent(input: {name: $name, discipline: CREATIVE}) { agent { id } } }"
DECLARED = "{ agents { nodes { name isAgent peers { name } payloadTypes { name description schema example } } } }"


async def declare(store: Database, name: str, *, peers: tuple[str, ...] = ()) -> None:
    keys = [row["_id"] async for row in store.handle["agents"].find({"name": {"$in": peers}})]
    schema = '{"$schema": "https://json-schema.org/draft/2020-12/schema", "type": "object"}'
    said = {
        "is_agent": False,
        "description": "",
        "peers": keys,
        "payload_types": [{"name": "task", "description": "Work.", "schema": schema, "example": '{"a": [1, null]}'}],
        "endpoint": None,
        "capabilities": [],
        "retired_at": None,
    }
    await store.handle["agents"].update_one({"name": name}, {"$set": {"declared": said}})


async def test_an_agent_says_what_is_declared_of_it(store: Database, user: Person) -> None:
    for name in ("Ear", "Mouth"):
        await user.client.query(CREATE, name=name)
    await declare(store, "Ear", peers=("Mouth",))

    ear, mouth = (await user.client.query(DECLARED))["agents"]["nodes"]

    schema = {"$schema": "https://json-schema.org/draft/2020-12/schema", "type": "object"}
    task = {"name": "task", "description": "Work.", "schema": schema, "example": {"a": [1, None]}}
    assert ear == {"name": "Ear", "isAgent": False, "peers": [{"name": "Mouth"}], "payloadTypes": [task]}
    assert mouth == {"name": "Mouth", "isAgent": True, "peers": [], "payloadTypes": []}


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ('updateAgent(input: {agent: {name: "Ear"}, name: "Nose"}) { agent { id } }', "name"),
        ('deleteAgent(input: {agent: {name: "Ear"}}) { deletedId }', "agent"),
    ],
)
async def test_a_declared_agent_keeps_its_name(store: Database, user: Person, change: str, field: str) -> None:
    await user.client.query(CREATE, name="Ear")
    await declare(store, "Ear")

    with pytest.raises(GraphQLErrors) as refused:
        await user.client.query(f"mutation {{ {change} }}")

    assert (refused.value.code, refused.value.field) == ("CONFLICT", field)
    assert (await user.client.query("{ agents { nodes { name } } }"))["agents"]["nodes"] == [{"name": "Ear"}]
