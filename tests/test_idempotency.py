"""Idempotency-Key: a mutation sent again is answered again, and done once."""

import asyncio
from datetime import UTC, datetime
from typing import Any

import pytest
from graphql import OperationDefinitionNode, OperationType, parse

from auth.viewer import Viewer
from graph.execution.documents import Document
from graph.schema import build
from models.errors import Conflict
from models.store import database
from models.store.database import Database
from models.store.idempotency import KeptAnswer
from models.users import Role
from resolvers import ROOTS
from server.idempotency import once
from server.operations import Answer, Operation, Request
from tests import factories
from tests.client import Client, Reply
from tests.factories import CREATE_KEY, LOGIN, PASSWORD, Person
from tests.processes import Server
from tests.test_agents import CREATE, create, names
from tests.test_ratings import RATE

SCHEMA = build(ROOTS)._schema  # noqa: SLF001  # Strawberry shows no public way to the schema it built


async def send(client: Client, document: str, key: str, **variables: Any) -> Reply:
    """Send a request under a key."""
    return await client.with_headers(Idempotency_Key=key).execute(document, variables)


def scout(**values: Any) -> dict[str, Any]:
    """Write a new agent as a client does."""
    return {"name": "Scout", "discipline": "STRATEGY", **values}


async def test_the_first_answer_comes_again(user: Person, store: Database) -> None:
    first = await send(user.client, CREATE, "k1", input=scout())
    again = await send(user.client, CREATE, "k1", input=scout())

    assert first.codes == again.codes == []
    assert first.body == again.body
    assert "Idempotent-Replayed" not in first.headers
    assert again.headers["Idempotent-Replayed"] == "true"
    assert await store.handle["agents"].count_documents({}) == 1
    without = await user.client.execute(CREATE, {"input": scout()})
    assert without.codes == ["CONFLICT"]


async def test_a_refusal_comes_again_too(user: Person) -> None:
    await create(user.client, "Scout")
    first = await send(user.client, CREATE, "k1", input=scout())
    await user.client.query('mutation { deleteAgent(input: {agent: {name: "Scout"}}) { deletedId } }')

    again = await send(user.client, CREATE, "k1", input=scout())

    assert first.codes == ["CONFLICT"]
    assert again.body == first.body
    assert await names(user.client) == []


async def test_another_request_under_the_key_is_refused(user: Person) -> None:
    await send(user.client, CREATE, "k1", input=scout())

    other = await send(user.client, CREATE, "k1", input=scout(name="Ranger"))

    assert (other.status, other.codes) == (409, ["CONFLICT"])
    assert await names(user.client) == ["Scout"]


async def test_a_key_is_its_callers_own(user: Person, another_user: Person, admin: Person) -> None:
    manager = await factories.api_key(admin, "MANAGE")

    for number, client in enumerate((user.client, another_user.client, manager)):
        reply = await send(client, CREATE, "k1", input=scout(name=f"Agent {number}"))
        assert reply.codes == []
        assert "Idempotent-Replayed" not in reply.headers
    assert len(await names(user.client)) == 3


async def test_of_many_at_once_on_two_processes_one_runs(
    *, client: Client, user: Person, server: Server, mongodb_uri: str, store: Database
) -> None:
    rated = {"agent": {"name": "Scout"}, "stars": 4}
    await create(user.client, "Scout")
    async with Server(mongodb_uri, **server.settings) as another:
        doors = [user.client, Client(client.session, another.graphql, user.access_token)]
        replies = await asyncio.gather(*(send(doors[n % 2], RATE, "k1", **rated) for n in range(20)))

    ran = [reply for reply in replies if not reply.codes and "Idempotent-Replayed" not in reply.headers]
    assert len(ran) == 1
    for reply in replies:
        if reply.codes:
            assert (reply.status, reply.codes) == (409, ["CONFLICT"])
        else:
            assert reply.body == ran[0].body
    assert (await send(user.client, RATE, "k1", **rated)).body == ran[0].body


async def test_what_never_came_to_an_end_is_not_run_again(user: Person) -> None:
    await send(user.client, CREATE, "k1", input=scout())
    await database.collection(KeptAnswer).update_many({}, {"$set": {"answer": None}})

    again = await send(user.client, CREATE, "k1", input=scout())

    assert (again.status, again.codes) == (409, ["CONFLICT"])
    assert await names(user.client) == ["Scout"]


async def test_what_could_not_be_run_leaves_the_key_free(user: Person) -> None:
    bad = await send(user.client, CREATE, "k1", input={"nonsense": 1})
    good = await send(user.client, CREATE, "k1", input=scout())

    assert bad.codes
    assert set(bad.codes) == {"BAD_USER_INPUT"}
    assert good.codes == []


async def test_answers_with_secrets_are_not_kept(user: Person, store: Database) -> None:
    values = {"name": "a key", "scopes": ["READ"]}
    fragment = "fragment A on Mutation { x: createApiKey(input: $input) { secret } }"
    hidden = f"mutation ($input: CreateApiKeyInput!) {{ ...A }} {fragment}"

    for document in (CREATE_KEY, hidden):
        reply = await send(user.client, document, "k1", input=values)
        assert (reply.codes, reply.body["errors"][0]["extensions"]["field"]) == (["BAD_USER_INPUT"], "idempotencyKey")
    rule = 'mutation { updateAlertRule(input: {id: "x"}) { alertRule { ... on AlertRule { webhookSecret } } } }'
    assert (await send(user.client, rule, "k1")).codes == ["BAD_USER_INPUT"]
    assert await store.handle["api_keys"].count_documents({}) == 0
    assert await store.handle["kept_answers"].count_documents({}) == 0


@pytest.mark.parametrize("key", ["with space", "ü", "x" * 256])
async def test_a_key_that_is_none_is_refused(user: Person, key: str) -> None:
    reply = await send(user.client, CREATE, key, input=scout())

    assert (reply.status, reply.codes) == (400, ["BAD_USER_INPUT"])
    assert await names(user.client) == []


async def test_nobody_has_keys_and_queries_need_none(client: Client, user: Person) -> None:
    login = await send(client, LOGIN, "k1", input={"email": user.email, "password": PASSWORD})
    query = await send(user.client, "{ me { email } }", "k1")

    assert login.codes == ["BAD_USER_INPUT"]
    assert query.body == {"data": {"me": {"email": user.email}}}
    assert await database.collection(KeptAnswer).count_documents({}) == 0


async def test_answers_go_after_a_day(user: Person, store: Database) -> None:
    await send(user.client, CREATE, "k1", input=scout())

    (kept,) = await store.handle["kept_answers"].find({}).to_list(2)
    indexes = await store.handle["kept_answers"].index_information()

    assert kept["created_at"] <= datetime.now(UTC)
    assert indexes["expiry"]["expireAfterSeconds"] == 86_400


async def test_variables_that_nest_too_deeply_are_refused(user: Person) -> None:
    deep: list[Any] = []
    for _ in range(400):
        deep = [deep]

    reply = await send(user.client, CREATE, "k1", input=scout(), more=deep)

    assert reply.codes == ["BAD_USER_INPUT"]
    assert await names(user.client) == []


@pytest.mark.parametrize("field", ["changePassword", "createUser"])
async def test_requests_with_passwords_are_not_kept(admin: Person, store: Database, field: str) -> None:
    values = {
        "changePassword": {"currentPassword": PASSWORD, "newPassword": "a better horse"},
        "createUser": {"email": "new@example.com", "name": "New", "password": "a better horse"},
    }[field]
    kind = field[0].upper() + field[1:]
    document = f"mutation ($input: {kind}Input!) {{ {field}(input: $input) {{ user {{ id }} }} }}"

    reply = await send(admin.client, document, "k1", input=values)

    assert reply.codes == ["BAD_USER_INPUT"]
    assert await store.handle["kept_answers"].count_documents({}) == 0


def failing(*codes: str, path: tuple[str | int, ...] = ("createAgent",), data: object = None) -> Answer:
    """Make an answer that failed."""
    errors = [{"message": code, "path": list(path), "extensions": {"code": code}} for code in codes]
    return Answer(errors, {"createAgent": data}, started=True)


@pytest.mark.parametrize(
    ("field", "first", "expected"),
    [
        # Below the mutation's own field: it took effect.
        ("createAgent", failing("SERVICE_UNAVAILABLE", path=("createAgent", "agent", "owner")), "conflict"),
        ("createAgent", failing("SERVICE_UNAVAILABLE"), "conflict"),
        ("createAgent", failing("RATE_LIMITED"), "again"),
        ("createAgent", failing("NOT_FOUND", "RATE_LIMITED"), "again"),
        ("createAgent", failing("RATE_LIMITED", data={"agent": {}}), "replayed"),
        ("createAgent", failing("RATE_LIMITED", "INTERNAL_SERVER_ERROR"), "replayed"),
        ("createAgent", failing("NOT_FOUND"), "replayed"),
        ("createAgent", failing("INTERNAL_SERVER_ERROR"), "replayed"),
        # Counted once however often it is sent: to send it again is what it asks for.
        ("collectUsage", failing("SERVICE_UNAVAILABLE", path=("collectUsage",)), "again"),
    ],
)
async def test_only_what_surely_did_nothing_is_run_again(
    store: Database, field: str, first: Answer, expected: str
) -> None:
    document = f"mutation {{ {field} {{ x }} }}"
    tree = parse(document)
    (node,) = tree.definitions
    assert isinstance(node, OperationDefinitionNode)
    operation = Operation(
        tree=tree,
        prepared=Document(tree).prepare(SCHEMA, node),
        kind=OperationType.MUTATION,
        request=Request(document, None, None),
        cost=1,
        allow=None,
        label=field,
    )
    answers = iter([first, Answer((), {field: {"x": 1}}, started=True)])

    async def run() -> Answer:
        return next(answers)

    async def send_it() -> tuple[Answer, bool]:
        return await once("k1", operation, viewer, now=datetime.now(UTC), run=run)

    viewer = Viewer(user=database.Key(), role=Role.USER)
    assert await send_it() == (first, False)
    if expected == "conflict":
        with pytest.raises(Conflict):
            await send_it()
    else:
        answer, replayed = await send_it()
        assert replayed == (expected == "replayed")
        assert (answer.data == first.data) == replayed
