"""Messages: what may be sent, by whom, to whom, and who may read it."""

import asyncio
from datetime import UTC, datetime
from typing import Any

import pytest

from models.store.database import Database, Key
from models.threads import conversations
from tests import factories
from tests.client import GraphQLErrors
from tests.factories import Person
from tests.talking import COMPLETE, INJECT, KILL, MESSAGE, SEND, TASK, Cast, Inbox

READ = f"""
query ($id: ID!, $agent: AgentBy) {{
  thread(id: $id) {{ id participants {{ name }} messages {{ totalCount nodes {{ id }} }} }}
  threads(participant: $agent) {{ totalCount nodes {{ id }} }}
  messages(agent: $agent) {{ totalCount nodes {{ {MESSAGE} }} }}
}}
"""
NODE = "query ($id: ID!) { node(id: $id) { id } }"


@pytest.fixture
async def cast(admin: Person, store: Database) -> Cast:
    """Give three agents: Mouth may write to Ear, who may answer, and Nose knows nobody."""
    made = Cast(admin, store.handle)
    await made.add("Mouth", "Ear", "Nose")
    await made.declare("Mouth", peers=("Ear",))
    await made.declare("Ear", peers=("Mouth",), types={"task": TASK, "list": {"type": "array"}})
    return made


async def refused(sending: Any) -> tuple[str, str | None, str]:  # whatever is awaited
    """Have something refused, for one reason; gives code, field and message."""
    with pytest.raises(GraphQLErrors) as caught:
        await sending
    return caught.value.code, caught.value.field, caught.value.message


async def count(store: Database, *names: str) -> int:
    """Count what is stored."""
    return sum([await store.handle[name].count_documents({}) for name in names])


# ---------------------------------------------------------------- sending


async def test_an_injected_message_opens_a_thread_and_waits_for_its_agent(cast: Cast, store: Database) -> None:
    sent = await cast.inject("Ear", {"n": 1})

    assert sent.pop("createdAt")
    thread = sent["thread"]["id"]
    assert sent | {"id": ""} == {
        "id": "",
        "payloadType": "task",
        "payload": {"n": 1},
        "depth": 0,
        "senderName": "Admin",
        "sender": None,
        "recipient": {"name": "Ear"},
        "thread": {"id": thread, "key": None, "status": "ACTIVE"},
        "parent": None,
        "delivery": {"status": "PENDING", "attempts": 0, "deliveredAt": None, "leasedUntil": None, "error": None},
    }
    read = await cast.boss.client.query(READ, id=thread)
    assert read["thread"]["participants"] == [{"name": "Ear"}]
    assert read["thread"]["messages"] == {"totalCount": 1, "nodes": [{"id": sent["id"]}]}
    seen = await cast.look("Ear")
    assert (seen["state"], seen["queueDepth"], seen["messageCount"]) == ("IDLE", 1, 1)


async def test_an_agent_sends_to_its_peer_and_waits_for_the_answer(cast: Cast) -> None:
    sent = await cast.send("Mouth", "Ear", {"n": 1}, thread={"key": "case 7"}, **{"from": {"name": "Mouth"}})

    assert (sent["sender"], sent["senderName"], sent["thread"]["key"]) == ({"name": "Mouth"}, "Mouth", "case 7")
    assert (await cast.look("Mouth"))["state"] == "WAITING"
    await cast.send("Ear", "Mouth", {}, thread={"id": sent["thread"]["id"]})
    assert (await cast.look("Mouth"))["state"] == "IDLE"
    assert (await cast.look("Ear"))["state"] == "WAITING"


async def test_a_key_of_ones_own_sends_once(cast: Cast, store: Database) -> None:
    given = {"idempotencyKey": "k", "thread": {"key": "case"}}

    sent = await asyncio.gather(*(cast.inject("Ear", {"n": 1}, **given) for _ in range(8)))
    again = await cast.inject("Ear", {"n": 1}, idempotencyKey="k2")
    same = await cast.inject("Ear", {"n": 1}, idempotencyKey="k2")
    by_agent = await cast.send("Mouth", "Ear", {"n": 1}, idempotencyKey="k")

    assert len({each["id"] for each in sent}) == 1
    assert (same["id"], same["thread"]) == (again["id"], again["thread"])
    assert len({sent[0]["id"], again["id"], by_agent["id"]}) == 3
    assert await count(store, "messages", "threads") == 6
    assert (await cast.look("Ear"))["queueDepth"] == 3


@pytest.mark.parametrize(
    "change",
    [
        {"payload": {"n": 2}},
        {"payloadType": "list", "payload": []},
        {"thread": {"key": "other"}},
        {"to": {"name": "Nose"}},
    ],
)
async def test_a_key_that_came_with_something_else_is_refused(
    cast: Cast, store: Database, change: dict[str, Any]
) -> None:
    values = {"to": {"name": "Ear"}, "payloadType": "task", "payload": {"n": 1}, "idempotencyKey": "k"}
    await cast.boss.client.query(INJECT, input=values)

    code, field, _ = await refused(cast.boss.client.query(INJECT, input=values | change))

    assert (code, field) == ("CONFLICT", "idempotencyKey")
    assert await count(store, "messages", "threads") == 2


# ---------------------------------------------------------------- what is refused

DEEP: Any = {"n": 1}
for _ in range(40):
    DEEP = {"n": DEEP}
BAD: list[tuple[str, object, str]] = [
    ("task", {}, "The payload does not fit task, at its top: 'n' is a required property"),
    ("task", {"n": "1"}, "The payload does not fit task, at /n: '1' is not of type 'integer'"),
    ("task", {"n": 1, "snake_case": 2}, "The payload does not fit task, at its top: Additional properties are not"),
    ("task", [], "The payload does not fit task, at its top: [] is not of type 'object'"),
    ("list", {"n": 1}, "The payload does not fit list, at its top: {'n': 1} is not of type 'array'"),
    ("list", None, "Variable '$input' has invalid value at .payload: Expected value of non-null type"),
    ("task", "x" * 256_000, "A payload has at most 256,000 bytes as JSON."),
    ("task", DEEP, "A payload is at most 40 levels deep."),
]


@pytest.mark.parametrize(("kind", "payload", "expected"), BAD)
async def test_a_bad_payload_is_refused_with_its_reason(
    cast: Cast, store: Database, kind: str, payload: object, expected: str
) -> None:
    code, field, message = await refused(cast.inject("Ear", payload, payloadType=kind))

    assert (code, field) == ("BAD_USER_INPUT", "payload")
    assert message.startswith(expected)
    assert await count(store, "messages", "threads", "control_events") == 0


async def test_no_payload_takes_longer_to_check_than_it_is_long(cast: Cast) -> None:
    schema = {
        "properties": {"name": {"pattern": "^(a+)+$"}, "rows": {"uniqueItems": True}},
        "patternProperties": {"^(b+)+$": {"type": "integer"}},
        "additionalProperties": False,
    }
    await cast.declare("Ear", types={"task": schema})
    rows = [{"row": number} for number in range(15_000)]

    assert (await cast.inject("Ear", {"name": "a" * 1000, "rows": rows, "b" * 1000: 1}))["id"]
    bad: list[tuple[object, str]] = [
        ({"name": f"{'a' * 1000}!"}, "/name: 'aaaa"),
        ({f"{'b' * 1000}!": 1}, "its top: Additional properties are not allowed ('bbbb"),
        ({"rows": [*rows, {"row": 1.0}]}, "/rows: [{'row': 0}, "),
        ({"b" * 1000: "x"}, f"/{'b' * 299}: 'x' is not of type 'integer'"),
    ]
    for payload, expected in bad:
        code, _, message = await refused(cast.inject("Ear", payload))
        assert code == "BAD_USER_INPUT"
        assert message.startswith(f"The payload does not fit task, at {expected}")
        assert len(message) < 700


@pytest.mark.parametrize("number", [f"{2**64}", "1e999", "[{m: -1e400}]"])
async def test_a_number_that_json_would_round_is_refused(cast: Cast, store: Database, number: str) -> None:
    values = f'to: {{name: "Nose"}}, payloadType: "a", payload: {{n: {number}}}'
    document = f"mutation {{ injectMessage(input: {{{values}}}) {{ message {{ id }} }} }}"

    code, field, message = await refused(cast.boss.client.query(document))

    assert (code, field) == ("BAD_USER_INPUT", "payload")
    assert message.startswith("A payload is JSON: whole numbers have at most 64 bits, others are finite, ")
    assert await count(store, "messages", "threads") == 0


async def test_without_declared_types_any_object_fits(cast: Cast, store: Database) -> None:
    await cast.inject("Nose", {"whatever": [1, None, {"$gt": "é"}]}, payloadType="anything at all")

    bad: list[object] = [[], "text", 1, False]
    for payload in bad:
        code, field, message = await refused(cast.inject("Nose", payload))
        assert (code, field) == ("BAD_USER_INPUT", "payload")
        assert message.startswith("This agent declares no payload types")
    read = await cast.boss.client.query("{ messages { nodes { payload } } }")
    assert read["messages"]["nodes"] == [{"payload": {"whatever": [1, None, {"$gt": "é"}]}}]


async def test_all_that_is_wrong_is_told_at_once(cast: Cast) -> None:
    with pytest.raises(GraphQLErrors) as caught:
        await cast.inject("Ear", DEEP, payloadType="", idempotencyKey="x" * 201)

    fields = caught.value.errors[0]["extensions"]["fields"]
    assert sorted(each["path"] for each in fields) == [["idempotencyKey"], ["payload"], ["payloadType"]]


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"payloadType": "song"}, ("BAD_USER_INPUT", "payloadType")),
        ({"to": {"name": "Nobody"}}, ("NOT_FOUND", "to")),
        ({"to": {}}, ("BAD_USER_INPUT", None)),
        ({"to": {"id": "x"}}, ("BAD_USER_INPUT", "to.id")),
        ({"thread": {"id": conversations.id_of(Key())}}, ("NOT_FOUND", "thread")),
        ({"thread": {"id": "x"}}, ("BAD_USER_INPUT", "thread.id")),
        ({"thread": {"key": "a\nb"}}, ("BAD_USER_INPUT", "thread.key")),
        ({"parent": "x"}, ("BAD_USER_INPUT", "parent")),
        ({"parent": "TWVzc2FnZTo2NTY1NjU2NTY1NjU2NTY1NjU2NTY1NjU="}, ("NOT_FOUND", "parent")),
    ],
)
async def test_what_is_not_there_takes_no_message(
    cast: Cast, store: Database, change: dict[str, Any], expected: tuple[str, str | None]
) -> None:
    values = {"to": {"name": "Ear"}, "payloadType": "task", "payload": {"n": 1}, "thread": {"key": "new"}}

    with pytest.raises(GraphQLErrors) as caught:
        await cast.boss.client.query(INJECT, input=values | change)

    assert caught.value.code == expected[0]
    assert expected[1] is None or caught.value.field == expected[1]
    assert await count(store, "messages", "threads", "control_events") == 0


async def test_an_agent_sends_to_its_peers_alone_and_learns_of_nobody_else(cast: Cast, store: Database) -> None:
    to_nose = await refused(cast.send("Mouth", "Nose", {}))
    to_nobody = await refused(cast.send("Mouth", "Nobody", {}))
    to_itself = await refused(cast.send("Mouth", "Mouth", {}))
    from_nose = await refused(cast.send("Nose", "Ear", {"n": 1}))
    by_id = await refused(
        cast.clients["Mouth"].query(SEND, input={"to": {"id": cast.ids["Nose"]}, "payloadType": "task", "payload": {}})
    )

    assert to_nose == to_nobody == to_itself == from_nose == by_id
    assert to_nose[:2] == ("FORBIDDEN", "to")
    assert await count(store, "messages", "threads") == 0


async def test_an_agent_sends_as_itself(cast: Cast) -> None:
    for name in ("Ear", "Nobody"):
        code, field, _ = await refused(cast.send("Mouth", "Ear", {"n": 1}, **{"from": {"name": name}}))
        assert (code, field) == ("BAD_USER_INPUT", "from")
    sent = await cast.send("Mouth", "Ear", {"n": 1}, **{"from": {"id": cast.ids["Mouth"]}})
    assert sent["senderName"] == "Mouth"


@pytest.mark.parametrize("retired", ["Ear", "Mouth"])
async def test_a_retired_agent_neither_sends_nor_receives(cast: Cast, store: Database, retired: str) -> None:
    other = "Ear" if retired == "Mouth" else "Mouth"
    await cast.declare(retired, peers=(other,), retired_at=datetime.now(UTC))

    sent = await refused(cast.send("Mouth", "Ear", {"n": 1}))
    injected = await refused(cast.inject(retired, {"n": 1}))

    assert sent[:2] == ("CONFLICT", "to" if retired == "Ear" else "from")
    assert injected[:2] == ("CONFLICT", "to")
    assert await count(store, "messages", "threads") == 0


async def test_a_chain_of_answers_comes_to_its_end(cast: Cast, store: Database) -> None:
    await cast.declare("Ear", peers=("Mouth",))
    told = await cast.inject("Ear", {})
    for depth in range(1, 33):
        told = await cast.inject("Ear", {}, parent=told["id"])
        assert told["depth"] == depth

    code, field, message = await refused(cast.inject("Ear", {}, parent=told["id"]))

    assert (code, field) == ("CONFLICT", "parent")
    assert "32 messages stand before this one" in message
    assert await count(store, "messages") == 33


async def test_a_loop_is_found_though_nobody_says_what_they_answer(cast: Cast) -> None:
    await cast.declare("Ear", peers=("Mouth",))
    await cast.inject("Mouth", {}, thread={"key": "loop"})
    depths: list[int] = []

    async def loop(inboxes: dict[str, Inbox]) -> None:
        thread: dict[str, object] | None = {"key": "loop"}
        for number in range(50):
            name, peer = ("Ear", "Mouth") if number % 2 else ("Mouth", "Ear")
            item = await inboxes[name].next()
            # Now and then it goes on in another thread, and answers only then what it holds.
            thread = thread if number % 3 else None
            if thread is not None:
                await inboxes[name].acknowledge(item)
            sent = await cast.send(name, peer, {}, thread=thread)
            if thread is None:
                await inboxes[name].acknowledge(item)
            thread = {"id": sent["thread"]["id"]}
            depths.append(sent["depth"])

    async with cast.inbox("Mouth") as mouth, cast.inbox("Ear") as ear:
        with pytest.raises(GraphQLErrors) as caught:
            await loop({"Mouth": mouth, "Ear": ear})

    assert caught.value.code == "CONFLICT"
    assert depths == list(range(1, 33))


@pytest.mark.parametrize("how", ["killed", "completed", "failed"])
async def test_a_closed_thread_takes_nothing(cast: Cast, how: str) -> None:
    thread = (await cast.inject("Ear", {"n": 1}))["thread"]["id"]
    if how == "killed":
        closed = (await cast.boss.client.query(KILL, thread=thread, reason="Enough."))["killThread"]["thread"]
    else:
        closed = await cast.boss.client.query(COMPLETE, thread=thread, reason="Enough.", failed=how == "failed")
        closed = closed["completeThread"]["thread"]

    code, field, message = await refused(cast.inject("Ear", {"n": 2}, thread={"id": thread}))

    assert (code, field) == ("CONFLICT", "thread")
    assert message == f"This thread is {how.upper()} (Enough.): it takes nothing more. Open another one."
    assert (closed["status"], closed["closedReason"]) == (how.upper(), "Enough.")


async def test_a_thread_has_at_most_a_hundred_participants(cast: Cast, store: Database) -> None:
    thread = (await cast.inject("Ear", {"n": 1}))["thread"]["id"]
    everybody = {"$push": {"participants": {"$each": [Key() for _ in range(99)]}}}
    await store.handle["threads"].update_one({}, everybody)

    await cast.inject("Ear", {"n": 2}, thread={"id": thread})

    code, field, _ = await refused(cast.inject("Nose", {}, thread={"id": thread}))
    assert (code, field) == ("CONFLICT", "to")


# ---------------------------------------------------------------- reading


async def test_an_agents_key_reads_its_own_threads_and_messages_alone(cast: Cast) -> None:
    first = await cast.send("Mouth", "Ear", {"n": 1}, thread={"key": "case"})
    thread = first["thread"]["id"]
    hidden = await cast.inject("Nose", {}, thread={"id": thread}, parent=first["id"])
    other = await cast.inject("Nose", {})

    mouth = await cast.clients["Mouth"].query(READ, id=thread)
    nose = await cast.clients["Nose"].query(READ, id=thread)
    elsewhere = await cast.clients["Mouth"].query(READ, id=other["thread"]["id"], agent={"name": "Nose"})
    all_of_it = await cast.boss.client.query(READ, id=thread)

    assert all_of_it["thread"]["messages"]["totalCount"] == 2
    assert mouth["thread"]["messages"] == {"totalCount": 1, "nodes": [{"id": first["id"]}]}
    assert nose["thread"]["messages"] == {"totalCount": 1, "nodes": [{"id": hidden["id"]}]}
    assert [each["id"] for each in mouth["messages"]["nodes"]] == [first["id"]]
    assert {each["id"] for each in nose["messages"]["nodes"]} == {hidden["id"], other["id"]}
    assert all(each["parent"] is None for each in nose["messages"]["nodes"])
    assert (mouth["threads"]["totalCount"], nose["threads"]["totalCount"]) == (1, 2)
    assert elsewhere["thread"] is None
    # The thread that both take part in.
    assert [each["id"] for each in elsewhere["threads"]["nodes"]] == [thread]
    assert elsewhere["messages"] == {"totalCount": 0, "nodes": []}
    for identifier in (hidden["id"], other["id"], other["thread"]["id"]):
        assert (await cast.clients["Mouth"].query(NODE, id=identifier))["node"] is None
    for identifier in (first["id"], thread):
        assert (await cast.clients["Mouth"].query(NODE, id=identifier))["node"] == {"id": identifier}


async def test_an_agent_does_not_join_a_thread_of_others(cast: Cast) -> None:
    thread = (await cast.inject("Nose", {}, thread={"key": "theirs"}))["thread"]["id"]

    by_id = await refused(cast.send("Mouth", "Ear", {"n": 1}, thread={"id": thread}))
    by_name = await refused(cast.send("Mouth", "Ear", {"n": 1}, thread={"key": "theirs"}))
    unknown = await refused(cast.send("Mouth", "Ear", {"n": 1}, thread={"id": conversations.id_of(Key())}))
    completed = await refused(cast.clients["Mouth"].query(COMPLETE, thread=thread))

    assert by_id == by_name == unknown
    assert by_id[:2] == completed[:2] == ("NOT_FOUND", "thread")


async def test_an_agents_key_is_made_by_its_owner(cast: Cast, user: Person, another_user: Person) -> None:
    create = 'mutation { createAgent(input: {name: "Mine", discipline: CREATIVE}) { agent { id } } }'
    await user.client.query(create)

    key = await factories.api_key(user, "READ", agent={"name": "Mine"})

    await factories.api_key(cast.boss, "READ", agent={"name": "Mine"})
    refusals = [
        await refused(factories.api_key(another_user, "READ", agent={"name": "Mine"})),
        await refused(factories.api_key(user, "READ", agent={"name": "Nobody"})),
        await refused(factories.api_key(cast.boss, "READ", "OPERATE", agent={"name": "Mine"})),
        await refused(factories.api_key(cast.boss, "MANAGE", agent={"name": "Mine"})),
    ]
    assert [each[:2] for each in refusals] == [
        ("FORBIDDEN", "agent"),
        ("NOT_FOUND", "agent"),
        ("BAD_USER_INPUT", "scopes"),
        ("BAD_USER_INPUT", "scopes"),
    ]
    assert (await key.query("{ agents { totalCount } }"))["agents"]["totalCount"] == 4
    listed = (await user.client.query("{ apiKeys { agent { name } } }"))["apiKeys"]
    assert listed == [{"agent": {"name": "Mine"}}]
