"""The registry: reads, writes, refusals, pages, search, indexes."""

import base64
from typing import Any

import pytest

from models import agents
from models.agents import ORDERS, AgentOrderField, Filter
from models.store import database
from models.store.database import Database
from models.store.pages import Order, Window
from tests import factories
from tests.client import Client, GraphQLErrors
from tests.factories import Person

CREATE = "mutation ($input: CreateAgentInput!) { createAgent(input: $input) { agent { id name } } }"
UPDATE = """
mutation ($input: UpdateAgentInput!) {
  updateAgent(input: $input) { agent { id name description project discipline status tags } }
}
"""
DELETE = "mutation ($input: DeleteAgentInput!) { deleteAgent(input: $input) { deletedId } }"
CLAIM = "mutation ($input: ClaimAgentInput!) { claimAgent(input: $input) { agent { owner { email } } } }"
ONE = "query ($by: AgentBy!) { agent(by: $by) { id name } }"
LIST = """
query ($search: String, $filter: AgentFilter, $order: AgentOrder, $first: Int, $after: String, $last: Int,
       $before: String) {
  agents(search: $search, filter: $filter, order: $order, first: $first, after: $after, last: $last, before: $before) {
    totalCount
    pageInfo { hasNextPage hasPreviousPage startCursor endCursor }
    edges { cursor }
    nodes { name }
  }
}
"""


async def create(client: Client, name: str, **values: Any) -> str:
    """Register an agent and give its id."""
    data = await client.query(CREATE, input={"name": name, "discipline": "STRATEGY", **values})
    created: str = data["createAgent"]["agent"]["id"]
    return created


async def names(client: Client, **variables: Any) -> list[str]:
    """List the names that a query finds."""
    return [node["name"] for node in (await client.query(LIST, **variables))["agents"]["nodes"]]


async def refusal(client: Client, document: str, **variables: Any) -> GraphQLErrors:
    """Send what must be refused, and give the refusal."""
    with pytest.raises(GraphQLErrors) as caught:
        await client.query(document, **variables)
    return caught.value


async def test_a_registered_agent_reads_back_whole(user: Person) -> None:
    values = {
        "name": "Market Scout",
        "description": "Finds\nmarkets.",
        "project": "Northstar",
        "discipline": "STRATEGY",
        "status": "DEVELOPMENT",
        "auditStatus": "AUDITED",
        "tags": ["a", "b", "a"],
        "userbase": "Everyone",
        "department": "Strategy",
        "contactPerson": "Mira",
    }

    await user.client.query(CREATE, input=values)

    fields = " ".join(values)
    document = f"query ($by: AgentBy!) {{ agent(by: $by) {{ {fields} owner {{ email }} rating {{ count average }} }} }}"
    found = (await user.client.query(document, by={"name": "Market Scout"}))["agent"]
    assert found == {
        **values,
        "tags": ["a", "b"],
        "owner": {"email": user.email},
        "rating": {"count": 0, "average": None},
    }


@pytest.mark.parametrize(
    "name",
    [
        "Räuber 🦊",
        "عميل الدعم",
        "👩‍👩‍👧 family",
        "e\u0301cole",
        "école",
        "名前",
        "a'b\"c$d{e}",
        "$where",
        "<b>bold</b>",
    ],
)
async def test_any_writing_is_kept_as_it_is(user: Person, name: str) -> None:
    identifier = await create(user.client, name)

    assert (await user.client.query(ONE, by={"name": name}))["agent"] == {"id": identifier, "name": name}


@pytest.mark.parametrize("name", ["", "   ", "x" * 201, "a\x00b", "a\nb", "a\x1bb", "a\u2028b", "\u200b\u200d"])
async def test_a_name_that_is_none_is_refused(user: Person, name: str) -> None:
    error = await refusal(user.client, CREATE, input={"name": name, "discipline": "STRATEGY"})

    assert (error.code, error.field) == ("BAD_USER_INPUT", "name")
    assert await names(user.client) == []


async def test_every_fault_is_told_at_once(user: Person) -> None:
    error = await refusal(
        user.client, CREATE, input={"name": "", "tags": ["ok", ""], "contactPerson": "x\x00", "project": "p" * 101}
    )

    faults = error.errors[0]["extensions"]["fields"]
    assert sorted(map(str, (fault["path"] for fault in faults))) == sorted(
        map(str, [["discipline"], ["name"], ["project"], ["tags", 1], ["contactPerson"]])
    )
    assert await names(user.client) == []


async def test_a_name_is_unique_among_agents(user: Person) -> None:
    await create(user.client, "Scout")

    error = await refusal(user.client, CREATE, input={"name": " Scout ", "discipline": "CREATIVE"})

    assert (error.code, error.field) == ("CONFLICT", "name")
    assert await names(user.client) == ["Scout"]


async def test_what_the_service_keeps_cannot_be_written(user: Person) -> None:
    for field in ("rating", "usage", "owner", "createdAt", "totalTokens", "deletedAt"):
        reply = await user.client.execute(CREATE, {"input": {"name": "x", "discipline": "STRATEGY", field: 5}})
        assert reply.codes == ["BAD_USER_INPUT"]
    assert await names(user.client) == []


async def test_an_update_keeps_what_is_absent_and_clears_what_is_null(user: Person) -> None:
    identifier = await create(user.client, "Scout", project="Northstar", description="Old", tags=["a"])

    data = await user.client.query(UPDATE, input={"agent": {"id": identifier}, "project": None, "status": "INACTIVE"})

    assert data["updateAgent"]["agent"] == {
        "id": identifier,
        "name": "Scout",
        "description": "Old",
        "project": None,
        "discipline": "STRATEGY",
        "status": "INACTIVE",
        "tags": ["a"],
    }


async def test_an_update_that_changes_nothing_leaves_the_time_of_the_last_change(user: Person) -> None:
    identifier = await create(user.client, "Scout", tags=["a"])
    asked = "mutation ($input: UpdateAgentInput!) { updateAgent(input: $input) { agent { updatedAt createdAt } } }"
    same = {"agent": {"id": identifier}, "name": "Scout", "tags": ["a"], "project": None}

    kept = (await user.client.query(asked, input=same))["updateAgent"]["agent"]
    changed = (await user.client.query(asked, input={**same, "tags": ["b"]}))["updateAgent"]["agent"]

    assert kept["updatedAt"] == kept["createdAt"] == changed["createdAt"] < changed["updatedAt"]


@pytest.mark.parametrize("field", ["name", "description", "status", "auditStatus", "tags"])
async def test_what_cannot_be_empty_cannot_be_cleared(user: Person, field: str) -> None:
    identifier = await create(user.client, "Scout")

    error = await refusal(user.client, UPDATE, input={"agent": {"id": identifier}, field: None})

    assert (error.code, error.field) == ("BAD_USER_INPUT", field)
    assert await names(user.client) == ["Scout"]


async def test_only_the_owner_or_an_admin_changes_an_agent(user: Person, another_user: Person, admin: Person) -> None:
    identifier = await create(user.client, "Scout")
    change = {"agent": {"id": identifier}, "description": "Changed"}

    for document, given in ((UPDATE, change), (DELETE, {"agent": {"id": identifier}})):
        error = await refusal(another_user.client, document, input=given)
        assert (error.code, error.field) == ("FORBIDDEN", "agent")
    assert (await user.client.query(ONE, by={"id": identifier}))["agent"]["name"] == "Scout"

    for person in (user, admin):
        data = await person.client.query(UPDATE, input=change)
        assert data["updateAgent"]["agent"]["description"] == "Changed"
    manager = await factories.api_key(admin, "MANAGE")
    assert (await manager.query(DELETE, input={"agent": {"id": identifier}}))["deleteAgent"]["deletedId"] == identifier


async def test_a_deleted_agent_is_found_no_more_and_its_name_is_free(user: Person) -> None:
    first = await create(user.client, "Scout")

    await user.client.query(DELETE, input={"agent": {"name": "Scout"}})

    for by in ({"id": first}, {"name": "Scout"}):
        assert (await user.client.query(ONE, by=by))["agent"] is None
    error = await refusal(user.client, DELETE, input={"agent": {"id": first}})
    assert (error.code, error.field) == ("NOT_FOUND", "agent")
    assert await create(user.client, "Scout") != first


async def test_an_agent_that_nobody_owns_can_be_claimed_once(user: Person, another_user: Person, admin: Person) -> None:
    manager = await factories.api_key(admin, "MANAGE", "READ")
    await create(manager, "Orphan", discipline=None)
    assert await names(user.client, filter={"unclaimed": True}) == ["Orphan"]

    data = await user.client.query(CLAIM, input={"agent": {"name": "Orphan"}})

    assert data["claimAgent"]["agent"]["owner"] == {"email": user.email}
    error = await refusal(another_user.client, CLAIM, input={"agent": {"name": "Orphan"}})
    assert (error.code, error.field) == ("CONFLICT", "agent")
    assert await names(user.client, filter={"unclaimed": True}) == []


async def test_filters_narrow_and_combine(user: Person) -> None:
    await create(user.client, "A", status="ACTIVE", tags=["x"], project="P")
    await create(user.client, "B", status="DEPRECATED", tags=["x", "y"], project="Q", discipline="CREATIVE")
    await create(user.client, "C", status="INACTIVE", auditStatus="AUDITED")

    assert await names(user.client, filter={"status": ["ACTIVE", "INACTIVE"]}) == ["A", "C"]
    assert await names(user.client, filter={"tag": "x"}) == ["A", "B"]
    assert await names(user.client, filter={"tag": "x", "project": "Q"}) == ["B"]
    assert await names(user.client, filter={"discipline": ["CREATIVE"]}) == ["B"]
    assert await names(user.client, filter={"auditStatus": "AUDITED"}) == ["C"]
    assert await names(user.client, filter={"owner": user.id}) == ["A", "B", "C"]
    assert await names(user.client, filter={"status": []}) == []


async def test_search_finds_beginnings_of_words_in_every_searched_field(user: Person) -> None:
    await create(user.client, "Café Scout", description="Reads invoices", tags=["ledger"])
    await create(user.client, "Planner", department="Finance", contactPerson="Zoë", project="Lighthouse")

    for search, found in {
        "cafe": ["Café Scout"],
        "SCO": ["Café Scout"],
        "inv led": ["Café Scout"],
        "fin zoe light": ["Planner"],
        "out": [],
        ".*": [],
        " ": ["Café Scout", "Planner"],
        "!!! scout": ["Café Scout"],
        "scout planner": [],
    }.items():
        assert await names(user.client, search=search) == found, search


@pytest.mark.parametrize("direction", ["ASC", "DESC"])
@pytest.mark.parametrize("order", [field.value for field in AgentOrderField])
async def test_pages_walk_every_order_forwards_and_backwards_without_gap(
    user: Person, store: Database, order: str, direction: str
) -> None:
    for number in range(7):
        await create(user.client, f"agent {number}")
    # Ties and missing values in every order: the walk must not stumble over equals.
    rows = database.collection(agents.Agent)
    for number in range(7):
        figures = {"usage.total_tokens": number // 2, "usage.messages": number // 3, "rating.average": 3.0}
        if number % 2:
            await rows.update_one({"name": f"agent {number}"}, {"$set": figures})
    by = {"field": order, "direction": direction}
    everything = await names(user.client, order=by)

    for size, cursor, bound, more in (
        ("first", "after", "endCursor", "hasNextPage"),
        ("last", "before", "startCursor", "hasPreviousPage"),
    ):
        walked: list[str] = []
        position: dict[str, Any] = {}
        for _ in range(4):
            page = (await user.client.query(LIST, order=by, **{size: 2}, **position))["agents"]
            found = [node["name"] for node in page["nodes"]]
            walked = walked + found if size == "first" else found + walked
            assert page["totalCount"] == 7
            assert page["pageInfo"][more] == (len(walked) < 7)
            position = {cursor: page["pageInfo"][bound]}
        assert walked == everything


@pytest.mark.parametrize(
    ("arguments", "field"),
    [
        ({"first": 0}, "first"),
        ({"first": 101}, "first"),
        ({"first": -1}, "first"),
        ({"last": 0}, "last"),
        ({"last": 101}, "last"),
        ({"first": 1, "last": 1}, "last"),
        ({"after": "rubbish"}, "after"),
        ({"after": ""}, "after"),
        ({"after": base64.b64encode(b'["users:name_folded:+","a",{"key":"x"}]').decode()}, "after"),
        ({"after": base64.b64encode(b'["agents:name_folded:+",{"$gt":1},[1]]').decode()}, "after"),
        ({"before": "ééé"}, "before"),
    ],
)
async def test_a_page_that_cannot_be_is_refused(user: Person, arguments: dict[str, Any], field: str) -> None:
    error = await refusal(user.client, LIST, **arguments)

    assert (error.code, error.field) == ("BAD_USER_INPUT", field)


async def test_a_cursor_of_another_order_is_refused(user: Person) -> None:
    await create(user.client, "A")
    cursor = (await user.client.query(LIST))["agents"]["edges"][0]["cursor"]

    error = await refusal(user.client, LIST, order={"field": "CREATED_AT"}, after=cursor)

    assert (error.code, error.field) == ("BAD_USER_INPUT", "after")


@pytest.mark.parametrize(
    "identifier",
    ["rubbish", "", "QWdlbnQ6", base64.b64encode(b"Agent:xyz").decode(), base64.b64encode(b"User:65" * 9).decode()],
)
async def test_an_id_that_is_none_is_refused(user: Person, identifier: str) -> None:
    error = await refusal(user.client, ONE, by={"id": identifier})

    assert (error.code, error.field) == ("BAD_USER_INPUT", "by.id")


async def test_an_id_of_another_type_is_refused(user: Person) -> None:
    error = await refusal(user.client, ONE, by={"id": user.id})

    assert (error.code, error.field) == ("BAD_USER_INPUT", "by.id")


@pytest.mark.parametrize("by", [{}, {"id": "x", "name": "y"}, {"id": None}, {"name": None}])
async def test_an_agent_is_named_by_exactly_one_of_id_and_name(user: Person, by: dict[str, Any]) -> None:
    error = await refusal(user.client, ONE, by=by)

    assert error.code == "BAD_USER_INPUT"


async def test_node_finds_an_agent_by_its_id(user: Person) -> None:
    identifier = await create(user.client, "Scout")

    data = await user.client.query("query ($id: ID!) { node(id: $id) { id ... on Agent { name } } }", id=identifier)

    assert data["node"] == {"id": identifier, "name": "Scout"}


@pytest.mark.parametrize("descending", [False, True])
@pytest.mark.parametrize("field", [ORDERS[each] for each in AgentOrderField])
async def test_no_order_sorts_in_memory_or_scans_the_collection(
    store: Database, user: Person, field: str, descending: bool
) -> None:
    await create(user.client, "Scout")
    order = Order(field, descending=descending)
    page = await agents.page(Filter(), order=order, window=Window(1))
    beyond = order.beyond(order.position(page.rows[0]), backwards=False)
    for where in (Filter(project="P").where(), {"$or": [{"$and": [Filter(tag="x").where(), each]} for each in beyond]}):
        cursor = database.collection(agents.Agent).find(where).sort(order.sort(backwards=False)).hint(f"by {field}")

        plan = str((await cursor.limit(21).explain())["queryPlanner"]["winningPlan"])

        assert "COLLSCAN" not in plan
        assert "'SORT'" not in plan
        assert "IXSCAN" in plan


async def test_search_reads_its_index(store: Database, user: Person) -> None:
    await create(user.client, "Scout")

    plan = await database.collection(agents.Agent).find(Filter(search="sco").where()).explain()

    assert "IXSCAN" in str(plan["queryPlanner"]["winningPlan"])
    assert "COLLSCAN" not in str(plan["queryPlanner"]["winningPlan"])
