"""Agents as CSV: what goes out comes back as it was, runs nowhere, and each row says what became of it."""

import asyncio
import csv
import io
import random
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from models import agents, sheets, text
from models.agents import Agent
from models.store import database
from models.store.database import Database
from tests import factories
from tests.client import Client, Reply
from tests.factories import Person
from tests.test_agents import create, names, refusal
from tests.test_ratings import RATE
from tests.test_usage import collect, event

IMPORT = """
mutation ($csv: String!, $dryRun: Boolean! = false) {
  importAgents(input: {csv: $csv, dryRun: $dryRun}) {
    created updated unchanged rejected rows { row name outcome column code message }
  }
}
"""
WRITTEN = (
    "{ agents(first: 100) { nodes { name description project discipline status auditStatus tags owner { email } } } }"
)
NASTY = [
    '=HYPERLINK("http://evil.example","x")',
    "+1+1",
    "-2+3",
    "@SUM(A1)",
    "\tx",
    "＝1+1",
    "'quoted",
    "''=twice",
    "'",
    "-5",
    'comma, "quote"',
    "line\nbreak",
    "ünïcödé 🚀 עברית",
]


async def export(client: Client, query: str = "", **headers: str) -> Reply:
    """Fetch the sheet."""
    there = Client(client.session, client.url.replace("/graphql", f"/agents.csv{query}"), client.token, client.headers)
    return await there.send("GET", headers=headers)


def lines(reply: Reply) -> list[dict[str, str]]:
    """Read a sheet as a spreadsheet does."""
    assert reply.status == 200, reply.content
    return list(csv.DictReader(io.StringIO(reply.content.decode("utf-8-sig"), newline="")))


async def load(client: Client, text: str, *, dry: bool = False) -> dict[str, Any]:
    """Send a sheet and give the answer."""
    answer: dict[str, Any] = (await client.query(IMPORT, csv=text, dryRun=dry))["importAgents"]
    return answer


def counts(answer: dict[str, Any]) -> tuple[int, int, int, int]:
    """Give what became of a sheet: created, updated, unchanged, rejected."""
    return answer["created"], answer["updated"], answer["unchanged"], answer["rejected"]


# ---------------------------------------------------------------- cells


@given(st.text())
def test_every_cell_comes_back(cell: str) -> None:
    assert sheets.unguard(sheets.guard(cell)) == cell


@given(st.text())
def test_no_cell_runs(cell: str) -> None:
    written = sheets.guard(cell)

    assert (
        written[:1] not in tuple("=+-@\t\r\n＝＋－＠") or not written or written.lstrip("+-").replace(".", "").isdigit()
    )


@given(st.lists(st.text(st.characters(exclude_categories=["C", "Z"]), min_size=1)))
def test_words_of_a_cell_come_back(words: list[str]) -> None:
    assert sheets.split(sheets.join(words)) == words


# ---------------------------------------------------------------- export


async def test_the_sheet_has_every_field_with_ratings_and_tokens(user: Person) -> None:
    await create(user.client, "Scout", description="Finds.", project="North", tags=["b", "a,c"], department="Sales")
    await user.client.query(RATE, agent={"name": "Scout"}, stars=4)
    await collect(user.client, event("1", cost="0.5", at="2026-05-01T10:00:00Z"))

    reply = await export(user.client)

    assert reply.headers["Content-Type"] == "text/csv; charset=utf-8"
    assert reply.headers["Content-Disposition"] == 'attachment; filename="agents.csv"'
    (line,) = lines(reply)
    created = line.pop("createdAt"), line.pop("updatedAt")
    assert all(datetime.fromisoformat(each).tzinfo for each in created)
    assert line.pop("id")
    assert line == {
        "name": "Scout",
        "description": "Finds.",
        "project": "North",
        "discipline": "STRATEGY",
        "status": "ACTIVE",
        "auditStatus": "NOT_AUDITED",
        "tags": 'b,"a,c"',
        "userbase": "",
        "department": "Sales",
        "contactPerson": "",
        "owner": user.email,
        "ratingAverage": "4.0",
        "ratingCount": "1",
        "messages": "1",
        "conversations": "0",
        "users": "0",
        "requests": "1",
        "promptTokens": "10",
        "completionTokens": "5",
        "totalTokens": "15",
        "cost": "0.500000000",
        "firstUsedAt": "2026-05-01T10:00:00Z",
        "lastUsedAt": "2026-05-01T10:00:00Z",
    }


@pytest.mark.parametrize(
    ("query", "found"),
    [
        ("", ["Able", "Baker", "Dog"]),
        ("?search=ab", ["Able"]),
        ("?status=INACTIVE", ["Baker"]),
        ("?status=INACTIVE&status=ACTIVE", ["Able", "Baker", "Dog"]),
        ("?discipline=CREATIVE&tag=x", ["Able"]),
        ("?project=North", ["Baker"]),
        ("?unclaimed=true", ["Dog"]),
        ("?unclaimed=false&auditStatus=NOT_AUDITED", ["Able", "Baker"]),
    ],
)
async def test_the_sheet_has_what_the_filter_means(user: Person, query: str, found: list[str]) -> None:
    await create(user.client, "Able", discipline="CREATIVE", tags=["x"])
    await create(user.client, "Baker", status="INACTIVE", project="North")
    await collect(user.client, event("1", agent={"name": "Dog"}))

    assert [line["name"] for line in lines(await export(user.client, query))] == found


@pytest.mark.parametrize(
    ("query", "field"),
    [
        ("?status=active", "status"),
        ("?nonsense=1", "nonsense"),
        ("?unclaimed=yes", "unclaimed"),
        ("?owner=x", "owner"),
        ("?tag=a&tag=b", "tag"),
        (f"?search={'x' * 1001}", "search"),
    ],
)
async def test_a_filter_that_is_none_is_refused(user: Person, query: str, field: str) -> None:
    reply = await export(user.client, query)

    assert (reply.status, reply.codes) == (400, ["BAD_USER_INPUT"])
    assert reply.body["errors"][0]["extensions"]["field"] == field


async def test_who_may_not_read_gets_no_sheet(client: Client, admin: Person, user: Person) -> None:
    collector, reader = await factories.api_key(admin, "COLLECT"), await factories.api_key(admin, "READ")

    assert [(await export(each)).status for each in (client, collector, reader, user.client)] == [401, 403, 200, 200]
    foreign = await export(client, Cookie=f"agenthub={user.access_token}", Origin="https://evil.example")
    assert (foreign.status, foreign.codes) == (403, ["FORBIDDEN"])
    assert (await export(client, Cookie=f"agenthub={user.access_token}")).status == 200


# ---------------------------------------------------------------- there and back


async def company(store: Database, owners: Sequence[Any], *, size: int) -> None:
    """Store agents with every field said, in every way that is hard on a sheet."""
    dice = random.Random(7)
    now = datetime.now(UTC)
    rows = []
    for number in range(size):
        nasty = NASTY[number % len(NASTY)]
        values = {
            "name": f"{nasty.strip()} {number}" if "\n" not in nasty else f"Agent {number}",
            "description": f"{nasty}" if number % 3 else "",
            "project": dice.choice([None, "North", "=South"]),
            "discipline": dice.choice([None, *agents.Discipline]),
            "status": dice.choice([*agents.AgentStatus]),
            "audit_status": dice.choice([*agents.AuditStatus]),
            "tags": dice.sample(["a", "b,c", '"q"', "=tag", "'d", "semi;colon"], dice.randint(0, 4)),
            "userbase": dice.choice([None, "everyone", "-"]),
            "department": dice.choice([None, "Sales", "@home"]),
            "contact_person": dice.choice([None, "Zoë", "'Anna"]),
        }
        checked = text.validate(agents.AgentFields, values, partial=False)
        rows.append(agents.row(checked, owner=dice.choice(owners), now=now))
    await database.collection(Agent).insert_many(rows)


async def test_five_thousand_agents_go_out_and_come_back_unchanged(
    admin: Person, user: Person, store: Database
) -> None:
    people = [row["_id"] async for row in store.handle["users"].find({})]
    await company(store, [None, *people], size=5000)
    before = {row["_id"]: row async for row in store.handle["agents"].find({})}

    sheet = (await export(admin.client)).content.decode()
    answer = await load(admin.client, sheet)

    assert counts(answer) == (0, 0, 5000, 0)
    assert {row["_id"]: row async for row in store.handle["agents"].find({})} == before

    await store.handle["agents"].delete_many({})
    rows = list(csv.reader(io.StringIO(sheet.removeprefix("\ufeff"), newline="")))
    place = rows[0].index("discipline")
    anew = await load(admin.client, sheet)
    assert anew["rejected"] == sum(not row[place] for row in rows[1:])
    kept = {row["name"]: row for row in before.values() if row["discipline"]}
    after = {row["name"]: row async for row in store.handle["agents"].find({})}
    assert after.keys() == kept.keys()
    for name, row in after.items():
        for field in sheets.FIELDS.values():
            assert row[field] == kept[name][field], (name, field)


async def test_cells_that_a_spreadsheet_would_run_are_text_there(user: Person) -> None:
    await create(user.client, "=1+1", description='=cmd|" /C calc"!A0', department="@SUM(1)", contactPerson="-5")

    (line,) = lines(await export(user.client))

    assert (line["name"], line["description"]) == ("'=1+1", '\'=cmd|" /C calc"!A0')
    assert (line["department"], line["contactPerson"]) == ("'@SUM(1)", "-5")


# ---------------------------------------------------------------- import


async def test_rows_create_and_change_by_name_and_touch_nothing_else(user: Person, store: Database) -> None:
    await create(user.client, "Scout", description="Old", project="North", tags=["a"])
    await user.client.query(RATE, agent={"name": "Scout"}, stars=5)
    await collect(user.client, event("1"))
    figures = await store.handle["agents"].find_one({"name": "Scout"}, {"rating": 1, "usage": 1})
    sheet = (
        "name,description,discipline,Audit Status,tags,ratingAverage,totalTokens\n"
        'Scout,New,back office,audited,"x, ""y, z""",1,99999\n'
        "Ranger,,Creative,,,2,5\n"
    )

    answer = await load(user.client, sheet)

    assert [(each["row"], each["name"], each["outcome"]) for each in answer["rows"]] == [
        (2, "Scout", "UPDATED"),
        (3, "Ranger", "CREATED"),
    ]
    assert counts(answer) == (1, 1, 0, 0)
    owner = {"email": user.email}
    assert (await user.client.query(WRITTEN))["agents"]["nodes"] == [
        {
            "name": "Ranger",
            "description": "",
            "project": None,
            "discipline": "CREATIVE",
            "status": "ACTIVE",
            "auditStatus": "NOT_AUDITED",
            "tags": [],
            "owner": owner,
        },
        {
            "name": "Scout",
            "description": "New",
            "project": "North",
            "discipline": "BACK_OFFICE",
            "status": "ACTIVE",
            "auditStatus": "AUDITED",
            "tags": ["x", "y, z"],
            "owner": owner,
        },
    ]
    assert await store.handle["agents"].find_one({"name": "Scout"}, {"rating": 1, "usage": 1}) == figures
    assert await names(user.client, search="new") == ["Scout"]
    ranger = await store.handle["agents"].find_one({"name": "Ranger"})
    assert ranger is not None
    assert (ranger["rating"]["count"], ranger["usage"]["total_tokens"]) == (0, 0)
    assert counts(await load(user.client, sheet)) == (0, 0, 2, 0)


async def test_a_dry_run_says_all_and_changes_nothing(user: Person, store: Database) -> None:
    await create(user.client, "Scout")
    before = [row async for row in store.handle["agents"].find({})]
    sheet = "name,discipline,status\nScout,STRATEGY,INACTIVE\nRanger,CREATIVE,\nBad,nonsense,\n"

    said = await load(user.client, sheet, dry=True)

    assert [row async for row in store.handle["agents"].find({})] == before
    assert said == await load(user.client, sheet)


@pytest.mark.parametrize(
    ("change", "row"),
    [
        (lambda text: "\ufeff" + text, 2),
        (lambda text: text.replace("\n", "\r\n"), 2),
        (lambda text: text.replace("\n", "\r"), 2),
        (lambda text: text.replace(",", ";"), 2),
        (lambda text: text.replace(",", "\t"), 2),
        (lambda text: text.replace("name", "NAME").replace("contactPerson", "Contact person"), 2),
        (lambda text: "\n\n" + text.replace("\n", "\n\n"), 5),
    ],
)
async def test_sheets_of_every_kind_are_read(user: Person, change: Any, row: int) -> None:
    sheet = 'name,discipline,contactPerson,description\nScout,CREATIVE,Zoë,"one\ntwo"\n'

    answer = await load(user.client, change(sheet))

    assert [(each["row"], each["outcome"]) for each in answer["rows"]] == [(row, "CREATED")]
    found = await database.collection(Agent).find_one({})
    assert found is not None
    assert found["contact_person"] == "Zoë"
    assert found["description"].split() == ["one", "two"]


@pytest.mark.parametrize(
    ("sheet", "says"),
    [
        ("", "no header"),
        ("\n\n", "no header"),
        ("description\nx\n", "`name` is missing"),
        ("name,nonsense\nx,y\n", "column 2: there is no column “nonsense”"),
        ("name,Name\nx,y\n", "column 2: “Name” stands there twice"),
        ('name\n"open\n', "Row 2 cannot be read"),
        ('name,description\na,b\nc,"d"e\n', "Row 3 cannot be read"),
        ("name\n" + "x\n" * 10_001, "At most 10,000 rows"),
    ],
)
async def test_what_is_no_sheet_is_refused_whole(user: Person, sheet: str, says: str) -> None:
    error = await refusal(user.client, IMPORT, csv=sheet)

    assert (error.code, error.field) == ("BAD_USER_INPUT", "csv")
    assert says in error.message
    assert await names(user.client) == []


@pytest.mark.parametrize(
    ("header", "line", "column", "code"),
    [
        ("name,discipline", ",CREATIVE", "name", "BAD_USER_INPUT"),
        ("name,discipline", f"{'x' * 201},CREATIVE", "name", "BAD_USER_INPUT"),
        ("name,discipline", "a\x00b,CREATIVE", "name", "BAD_USER_INPUT"),
        ("name,discipline", "Scout,", "discipline", "BAD_USER_INPUT"),
        ("name,discipline", "Scout,nonsense", "discipline", "BAD_USER_INPUT"),
        ("name,discipline,status", "Scout,CREATIVE,gone", "status", "BAD_USER_INPUT"),
        ("name,discipline,tags", f"Scout,CREATIVE,{'t' * 51}", "tags", "BAD_USER_INPUT"),
        ("name,discipline,tags", 'Scout,CREATIVE,"""open"', "tags", "BAD_USER_INPUT"),
        ("name,discipline,owner", "Scout,CREATIVE,nobody@example.com", "owner", "NOT_FOUND"),
        ("name,discipline,owner", "Scout,CREATIVE,admin@example.com", "owner", "FORBIDDEN"),
        ("name,discipline", "Scout,CREATIVE,surplus", None, "BAD_USER_INPUT"),
        ("name,discipline", "Good,CREATIVE", "name", "CONFLICT"),
        ("name,discipline", "Theirs,CREATIVE", "name", "FORBIDDEN"),
    ],
)
async def test_a_row_that_cannot_be_taken_says_where_and_why_and_keeps_no_other(
    *, user: Person, admin: Person, header: str, line: str, column: str | None, code: str
) -> None:
    await create(admin.client, "Theirs")
    blanks = "," * (header.count(",") - 1)

    answer = await load(user.client, f"{header}\nGood,CREATIVE{blanks}\n{line}\nBetter,CREATIVE{blanks}\n")

    assert counts(answer) == (2, 0, 0, 1)
    (bad,) = [row for row in answer["rows"] if row["outcome"] == "REJECTED"]
    assert (bad["row"], bad["column"], bad["code"]) == (3, column, code)
    assert bad["message"]
    assert await names(user.client) == ["Better", "Good", "Theirs"]


async def test_owners_are_said_by_admins_alone(user: Person, another_user: Person, admin: Person) -> None:
    sheet = f"name,discipline,owner\nMine,CREATIVE,{user.email}\nTheirs,CREATIVE,{another_user.email}\nNone,CREATIVE,\n"

    mine = await load(user.client, sheet)
    theirs = await load(admin.client, sheet)
    key = await load(await factories.api_key(admin, "MANAGE"), sheet.replace(another_user.email, user.email))

    assert counts(mine) == (2, 0, 0, 1)
    assert counts(theirs) == (1, 1, 1, 0)
    assert counts(key) == (0, 0, 2, 1)
    assert {node["name"]: node["owner"] for node in (await user.client.query(WRITTEN))["agents"]["nodes"]} == {
        "Mine": {"email": user.email},
        "Theirs": {"email": another_user.email},
        "None": None,
    }


async def test_the_same_sheet_twice_at_once_creates_each_agent_once(admin: Person, user: Person) -> None:
    sheet = "name,discipline\n" + "".join(f"Agent {number},CREATIVE\n" for number in range(700))

    first, second = await asyncio.gather(load(admin.client, sheet), load(admin.client, sheet))

    assert first["created"] + second["created"] == 700
    assert first["unchanged"] + second["unchanged"] == 700
    assert first["rejected"] == second["rejected"] == 0
    assert await database.collection(Agent).count_documents({}) == 700


async def test_a_deleted_agent_is_created_anew(user: Person) -> None:
    await create(user.client, "Scout")
    await user.client.query('mutation { deleteAgent(input: {agent: {name: "Scout"}}) { deletedId } }')

    assert counts(await load(user.client, "name,discipline\nScout,CREATIVE\n")) == (1, 0, 0, 0)
    assert await names(user.client) == ["Scout"]
