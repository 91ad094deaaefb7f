"""What a document may ask for: each limit, said with how much was asked; and nothing that takes long to refuse."""

import asyncio
from typing import Any

import pytest
from graphql import get_introspection_query

from tests.client import Client
from tests.factories import Person
from tests.processes import Server
from tests.test_agents import create

BOMB = (
    "query { ...F0 } "
    + " ".join(f"fragment F{n} on Query {{ ...F{n + 1} ...F{n + 1} }}" for n in range(60))
    + " fragment F60 on Query { me { id } }"
)
DEEP = "{ agents { nodes { owner " + "{ agents { nodes { owner " * 5 + "{ id }" + " } } }" * 5 + " } } }"
WIDE = """
{ agents(first: 100) { nodes { usageTimeline(days: 366) { day } owner { agents(first: 100) { nodes { owner {
  agents(first: 100) { nodes { id } }
} } } } } } }
"""

MERGED = """
{ agents { nodes { id } } ...A ...B }
fragment A on Query { agents { nodes { name } } }
fragment B on Query { agents { nodes { id name owner { id } } } }
"""


async def refused(client: Client, document: str, variables: dict[str, Any] | None = None) -> dict[str, Any]:
    """Send what asks for too much, and give what the one error says of it."""
    reply = await client.execute(document, variables)
    assert reply.codes == ["QUERY_TOO_COMPLEX"], reply.body
    assert "data" not in reply.body
    said: dict[str, Any] = reply.body["errors"][0]["extensions"]
    return said


@pytest.mark.parametrize(
    ("document", "measure", "actual", "limit"),
    [
        (DEEP, "depth", 19, 15),
        ("{ me { " + "id " * 1000 + "} }", "fields", 1001, 1000),
        (BOMB, "fields", 10**15, 1000),
        ("{ me { " + " ".join(f"a{n}: id" for n in range(101)) + " } }", "aliases", 101, 100),
        ("{ " + "me { id } " * 51 + "}", "rootFields", 51, 50),
        ("{ ...A ...A } fragment A on Query { " + "me { id } " * 26 + "}", "rootFields", 52, 50),
        ("{ me { id " + "@skip(if: true) @include(if: true) " * 26 + "} }", "directives", 52, 50),
        ("{ me { " + "id " * 2000 + "} }", "tokens", 2001, 2000),
        ("{ me {" + "\n" * 100_000 + " id } }", "length", 100_013, 100_000),
        (WIDE, "cost", 1_066_902, 50_000),
    ],
)  # fmt: skip
async def test_a_document_that_asks_for_too_much_is_told_so(
    *, user: Person, document: str, measure: str, actual: int, limit: int
) -> None:
    said = await refused(user.client, document)

    assert (said["measure"], said["actual"], said["limit"]) == (measure, actual, limit)


@pytest.mark.parametrize("kind", ["json", "socket", "stream"])
async def test_every_transport_refuses_it(user: Person, kind: str) -> None:
    if kind == "json":
        assert (await refused(user.client, BOMB))["measure"] == "fields"
    elif kind == "socket":
        async with user.client.socket() as socket:
            await socket.initialise(user.access_token)
            await socket.subscribe("1", BOMB)
            frame = await socket.receive()
        assert (frame["type"], frame["payload"][0]["extensions"]["code"]) == ("error", "QUERY_TOO_COMPLEX")
    else:
        reply = await user.client.post({"query": BOMB}, Accept="text/event-stream")
        assert b"QUERY_TOO_COMPLEX" in reply.content


async def test_introspection_passes_and_nests_no_further(user: Person) -> None:
    whole = await user.client.execute(get_introspection_query(descriptions=True, input_value_deprecation=True))
    nested = await user.client.execute(
        "{ __schema { types { fields { type { fields { type { fields { type { fields { name } } } } } } } } } }"
    )

    assert whole.codes == []
    assert nested.codes == ["GRAPHQL_VALIDATION_FAILED"]


@pytest.mark.parametrize(
    ("document", "variables", "cost"),
    [
        ("{ __typename }", {}, 1),
        ("{ me { id name } }", {}, 2),
        ("{ agents { totalCount } }", {}, 2),
        ("{ agents { nodes { id } } }", {}, 22),
        ("{ agents(first: 100) { nodes { id } edges { node { id } } } }", {}, 302),
        ("query ($n: Int) { agents(first: $n) { nodes { id } } }", {"n": 7}, 9),
        ("query ($n: Int = 5) { agents(first: $n) { nodes { id } } }", {}, 7),
        ("query ($n: Int) { agents(first: $n) { nodes { owner { id } } } }", {"n": None}, 42),
        ("{ agents(first: 2) { nodes { usageTimeline { day } } } }", {}, 64),
        ('{ agents(first: 2) { nodes { usageTimeline(from: "2020-01-01") { day } } } }', {}, 736),
        ("{ agents(first: 2) { nodes { ...A } } } fragment A on Agent { usageByHour(hours: 3) { hour } }", {}, 10),
        ("{ a: agents(first: 1) { nodes { id } } b: agents(first: 1) { nodes { id } } }", {}, 5),
        ("query ($n: Int) { agents(first: $n) { nodes { id } } }", {"n": 100.0}, 102),
        ("query ($n: Int = 0) { agents(first: $n) { nodes { id } } }", {"n": None}, 22),
        ("query ($n: Int = 1) { agents(first: $n, last: 9) { nodes { id } } }", {}, 11),
        ("query ($f: Date) { agents(first: 2) { nodes { usageTimeline(days: 7, from: $f) { day } } } }", {}, 18),
        (
            'query ($f: Date) { agents(first: 2) { nodes { usageTimeline(from: $f, to: "2026-01-07") { day } } } }',
            {"f": "2026-01-01"},
            18,
        ),
        (MERGED, {}, 42),
        ("{ usage { timeline { day } } }", {}, 2012),
        ('{ node(id: "QWdlbnQ6MQ==") { ... on Agent { ratings(first: 5) { nodes { stars } } } } }', {}, 8),
    ],
)  # fmt: skip
async def test_the_cost_is_said_when_asked_for(
    user: Person, document: str, variables: dict[str, Any], cost: int
) -> None:
    asked = user.client.with_headers(GraphQL_Cost="true")

    assert (await asked.execute(document, variables)).body["extensions"] == {
        "cost": {"requested": cost, "maximum": 50_000}
    }
    assert "extensions" not in (await user.client.execute(document, variables)).body


async def test_the_same_document_costs_what_its_variables_say(user: Person) -> None:
    document = "query ($n: Int) { agents(first: $n) { nodes { owner { agents(first: $n) { nodes { ratings(first: $n) { nodes { id } } } } } } } }"  # noqa: E501

    assert (await user.client.execute(document, {"n": 5})).codes == []
    assert (await refused(user.client, document, {"n": 100}))["measure"] == "cost"
    # What is no number at all is for the coercion of variables to refuse.
    assert (await user.client.execute(document, {"n": "many"})).codes == ["BAD_USER_INPUT"]
    assert (await user.client.execute("{ agents(first: 1000000) { totalCount } }")).codes == ["BAD_USER_INPUT"]


async def test_the_limits_are_settings(client: Client, server: Server, mongodb_uri: str) -> None:
    strict = {"MAX_DEPTH": "2", "MAX_COST": "5", "MAX_TOKENS": "100"}
    async with Server(mongodb_uri, **server.settings | strict) as another:
        there = Client(client.session, another.graphql)

        assert (await refused(there, "{ me { agents { nodes { id } } } }"))["limit"] == 2
        assert (await refused(there, "{ ratingFramework { stars } }"))["limit"] == 5
        assert (await refused(there, "{ me { " + "id " * 100 + "} }"))["limit"] == 100


async def test_others_are_answered_while_bombs_are_refused(user: Person, client: Client) -> None:
    await create(user.client, "Scout")
    # Each another text, so that none is remembered.
    bombs = [f"{BOMB} # {number}" for number in range(30)]

    async with asyncio.timeout(20):
        answers = await asyncio.gather(
            *(client.execute(bomb) for bomb in bombs), *(user.client.execute("{ me { id } }") for _ in range(30))
        )

    assert [reply.codes for reply in answers] == [["QUERY_TOO_COMPLEX"]] * 30 + [[]] * 30


async def test_lists_without_a_size_of_their_own_count_ten(user: Person) -> None:
    asked = "{ agents(first: 100) { nodes { alerts { nodes { deliveries { id } } } } } }"

    reply = await user.client.with_headers(GraphQL_Cost="true").execute(asked)

    assert reply.body["extensions"]["cost"]["requested"] == 2 + 100 * (1 + 1 + 20 * (1 + 10))


@pytest.mark.parametrize(
    "document",
    [
        f"query ($x: ID! = {'1' * 5000}) {{ node(id: $x) {{ id }} }}",
        f"{{ agents(first: {'1' * 5000}) {{ totalCount }} }}",
        f"query ($n: Int = {'1' * 300}) {{ agents(first: $n) {{ totalCount }} }}",
    ],
)
async def test_numbers_beyond_all_measure_are_refused_and_end_no_socket(user: Person, document: str) -> None:
    reply = await user.client.execute(document)
    async with user.client.socket() as socket:
        await socket.initialise(user.access_token)
        await socket.subscribe("1", document)
        frame = await socket.receive()
        await socket.subscribe("2", "{ __typename }")
        assert (await socket.receive())["id"] == "2"

    assert set(reply.codes) <= {"GRAPHQL_PARSE_FAILED", "GRAPHQL_VALIDATION_FAILED", "BAD_USER_INPUT"}
    assert reply.codes
    assert frame["type"] == "error"


async def test_messages_repeat_no_more_than_a_little_of_what_was_sent(client: Client) -> None:
    text = " Did you mean" * 7000

    reply = await client.execute(f'{{ agents(search: ["{text}"]) {{ totalCount }} }}')

    assert reply.codes == ["GRAPHQL_VALIDATION_FAILED"]
    assert len(reply.body["errors"][0]["message"]) <= 1001
