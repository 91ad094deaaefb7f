"""Prices: set, listed, shipped, followed by every process; and what a call costs by them, to the nanodollar."""

import os
import signal
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from decimal import ROUND_HALF_EVEN, Context, Decimal
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from models import agents, text
from models.errors import Conflict
from models.prices import costs, entries, listed
from models.prices.costs import Table
from models.prices.entries import Price
from models.store import database
from models.store.commits import Commits
from models.store.database import Database, Key
from models.store.migrations import Migration
from models.usage.counting import Batch, Counting
from models.usage.events import Event, UsageEvent
from models.usage.rebuild import rebuild
from server.mongod import Mongod
from tests import factories
from tests.client import Client
from tests.factories import Person
from tests.processes import Server, launch
from tests.test_agents import refusal
from tests.test_usage import COLLECT, SCOUT, collect, event, totals

SET = """
mutation ($input: SetPriceInput!) {
  setPrice(input: $input) {
    price {
      id modelPrefix provider validFrom prompt completion cached cacheWrite reasoning listedOn updatedAt setBy { email }
    }
  }
}
"""
DELETE = "mutation ($id: ID!) { deletePrice(input: {id: $id}) { deletedId } }"
PRICES = """
query ($model: String, $first: Int, $after: String) {
  prices(model: $model, first: $first, after: $after) {
    totalCount pageInfo { endCursor hasNextPage } nodes { modelPrefix provider validFrom prompt completion listedOn }
  }
}
"""
EVENT = """
query ($id: ID!, $source: String! = "test") {
  usageEvent(id: $id, source: $source) {
    id source at model provider promptTokens completionTokens cachedTokens cacheWriteTokens reasoningTokens
    messages latencyMs conversation user parent cost costSource agent { name } price { id modelPrefix }
  }
}
"""
NODE = "query ($id: ID!) { node(id: $id) { ... on Price { modelPrefix prompt } } }"
AGES_AGO = "2000-01-01T00:00:00Z"


async def put(client: Client, prefix: str, prompt: str, completion: str, **values: Any) -> dict[str, Any]:
    """Set a price, as old as can be where nothing is said."""
    given = {"modelPrefix": prefix, "validFrom": AGES_AGO, "prompt": prompt, "completion": completion, **values}
    price: dict[str, Any] = (await client.query(SET, input=given))["setPrice"]["price"]
    return price


async def cost(client: Client, key: str) -> tuple[str | None, str]:
    """Read what an event costs, and where that comes from."""
    found = (await client.query(EVENT, id=key))["usageEvent"]
    return found["cost"], found["costSource"]


# ---------------------------------------------------------------- the table


async def test_a_price_is_set_found_replaced_and_deleted(admin: Person, user: Person) -> None:
    first = await put(admin.client, "Priced-A", "2.5", "10", provider="OpenAI", cached="0.0375", reasoning="12")

    assert first | {"id": "", "updatedAt": ""} == {
        "id": "",
        "modelPrefix": "priced-a",
        "provider": "openai",
        "validFrom": AGES_AGO,
        "prompt": "2.5",
        "completion": "10",
        "cached": "0.0375",
        "cacheWrite": None,
        "reasoning": "12",
        "listedOn": None,
        "updatedAt": "",
        "setBy": {"email": admin.email},
    }
    second = await put(admin.client, "priced-a", "0.000000001", "0", provider="openai")
    assert second["id"] == first["id"]
    assert (second["prompt"], second["completion"], second["cached"]) == ("0.000000001", "0", None)
    assert (await user.client.query(NODE, id=first["id"]))["node"] == {
        "modelPrefix": "priced-a",
        "prompt": "0.000000001",
    }
    assert (await user.client.query(PRICES))["prices"]["totalCount"] == 1

    await admin.client.query(DELETE, id=first["id"])

    assert (await user.client.query(NODE, id=first["id"]))["node"] is None
    assert (await user.client.query(PRICES))["prices"]["totalCount"] == 0
    error = await refusal(admin.client, DELETE, id=first["id"])
    assert (error.code, error.field) == ("NOT_FOUND", "id")
    assert (await put(admin.client, "priced-a", "1", "1", provider="openai"))["id"] == first["id"]


async def test_without_a_beginning_a_price_holds_from_now_on(admin: Person) -> None:
    price = (await admin.client.query(SET, input={"modelPrefix": "priced-b", "prompt": "1", "completion": "1"}))[
        "setPrice"
    ]["price"]

    assert abs(datetime.fromisoformat(price["validFrom"]) - datetime.now(UTC)) < timedelta(minutes=1)
    await collect(
        admin.client,
        event("before", model="priced-b", at="2026-05-01T00:00:00Z"),
        event("after", model="priced-b", at=(datetime.now(UTC) + timedelta(hours=1)).isoformat()),
    )
    assert await cost(admin.client, "before") == (None, "UNKNOWN")
    assert await cost(admin.client, "after") == ("0.000015", "TABLE")


FAULTS: list[tuple[dict[str, Any], str]] = [
    ({"modelPrefix": ""}, "modelPrefix"),
    ({"modelPrefix": "x" * 201}, "modelPrefix"),
    ({"modelPrefix": "a\x00"}, "modelPrefix"),
    ({"modelPrefix": "\ufdfa" * 20}, "modelPrefix"),
    ({"provider": ""}, "provider"),
    ({"provider": "p" * 101}, "provider"),
    ({"prompt": "-0.1"}, "prompt"),
    ({"prompt": "100001"}, "prompt"),
    ({"prompt": "0.0000000001"}, "prompt"),
    ({"completion": "-1"}, "completion"),
    ({"cached": "-1"}, "cached"),
    ({"cacheWrite": "100000.1"}, "cacheWrite"),
    ({"reasoning": "1.1234567891"}, "reasoning"),
    ({"validFrom": "1999-12-31T23:59:59Z"}, "validFrom"),
    ({"validFrom": "3000-01-01T00:00:00Z"}, "validFrom"),
]


@pytest.mark.parametrize(("values", "field"), FAULTS)
async def test_a_bad_price_is_refused(admin: Person, store: Database, values: dict[str, Any], field: str) -> None:
    given = {"modelPrefix": "priced", "validFrom": AGES_AGO, "prompt": "1", "completion": "1", **values}

    error = await refusal(admin.client, SET, input=given)

    assert (error.code, error.field) == ("BAD_USER_INPUT", field)
    assert await store.handle["prices"].count_documents({}) == 0


async def test_every_fault_of_a_price_is_told_at_once(admin: Person) -> None:
    reply = await admin.client.execute(
        SET, {"input": {"modelPrefix": "", "prompt": "-1", "completion": "-1", "cached": "0.0000000001"}}
    )

    told = reply.body["errors"][0]["extensions"]["fields"]
    assert [fault["path"] for fault in told] == [["modelPrefix"], ["prompt"], ["completion"], ["cached"]]


async def test_prices_come_by_prefix_in_pages_and_by_model(admin: Person) -> None:
    for prefix in ("priced-c", "priced-a", "priced-abc", "priced-ab"):
        await put(admin.client, prefix, "1", "2")

    first = (await admin.client.query(PRICES, first=3))["prices"]
    rest = (await admin.client.query(PRICES, first=3, after=first["pageInfo"]["endCursor"]))["prices"]
    fitting = (await admin.client.query(PRICES, model="Priced-AB-2"))["prices"]

    assert first["totalCount"] == 4
    assert [each["modelPrefix"] for each in first["nodes"] + rest["nodes"]] == [
        "priced-a", "priced-ab", "priced-abc", "priced-c",
    ]  # fmt: skip
    assert (first["pageInfo"]["hasNextPage"], rest["pageInfo"]["hasNextPage"]) == (True, False)
    assert [each["modelPrefix"] for each in fitting["nodes"]] == ["priced-a", "priced-ab"]
    assert fitting["totalCount"] == 2


def test_a_long_name_is_looked_up_no_further_than_the_longest_prefix(monkeypatch: pytest.MonkeyPatch) -> None:
    tried: list[str] = []

    class Name(str):
        """A name that notes which of its beginnings are looked at."""

        __slots__ = ()

        def __getitem__(self, place: Any) -> str:
            tried.append(super().__getitem__(place))
            return tried[-1]

    monkeypatch.setattr(text, "fold", Name)
    start = datetime(2026, 1, 1, tzinfo=UTC)
    table = Table([{"model_prefix": prefix, "provider": None, "valid_from": start} for prefix in ("a", "abc")])

    found = table.find("ab" + "x" * 3000, None, start)

    assert found is not None
    assert found["model_prefix"] == "a"
    assert tried == ["abx", "ab", "a"]


async def test_the_table_holds_whatever_is_stored(admin: Person, monkeypatch: pytest.MonkeyPatch) -> None:
    for prefix in ("priced-a", "priced-b"):
        await put(admin.client, prefix, "1", "2")
    # Two admins at once may pass the bound by one.
    monkeypatch.setattr(entries, "MOST", 1)
    table = await entries.table()

    assert all(table.find(f"priced-{each}", None, datetime.now(UTC)) for each in "ab")


async def test_the_table_has_a_bound(admin: Person, store: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    await put(admin.client, "priced-a", "1", "2")
    monkeypatch.setattr(entries, "MOST", 1)
    values = {"model_prefix": "priced-b", "valid_from": datetime(2026, 1, 1, tzinfo=UTC), "prompt": 1, "completion": 1}

    with pytest.raises(Conflict):
        await entries.put(values, by=None, now=datetime.now(UTC))
    # One that is there may be changed all the same.
    await entries.put(
        values | {"model_prefix": "priced-a", "valid_from": entries.EARLIEST}, by=None, now=datetime.now(UTC)
    )
    assert await store.handle["prices"].count_documents({}) == 1


# ---------------------------------------------------------------- what a call costs


async def test_the_reported_cost_goes_first_and_each_says_where_it_comes_from(admin: Person) -> None:
    price = await put(admin.client, "priced-m", "2", "10")
    await collect(
        admin.client,
        event("said", model="priced-m", cost="0.5"),
        event("nothing", model="priced-m", cost="0"),
        event(
            "table", model="priced-m", provider="acme", at="2026-05-01T10:00:00Z", latencyMs=7, user="u", parent="said"
        ),
        event("unknown", model="unheard-of"),
        event("unnamed"),
    )

    assert await cost(admin.client, "said") == ("0.5", "REPORTED")
    assert await cost(admin.client, "nothing") == ("0", "REPORTED")
    assert await cost(admin.client, "unknown") == (None, "UNKNOWN")
    assert await cost(admin.client, "unnamed") == (None, "UNKNOWN")
    assert (await admin.client.query(EVENT, id="table"))["usageEvent"] == {
        "id": "table",
        "source": "test",
        "at": "2026-05-01T10:00:00Z",
        "model": "priced-m",
        "provider": "acme",
        "promptTokens": 10,
        "completionTokens": 5,
        "cachedTokens": 0,
        "cacheWriteTokens": 0,
        "reasoningTokens": 0,
        "messages": 1,
        "latencyMs": 7,
        "conversation": None,
        "user": "u",
        "parent": "said",
        "cost": "0.00007",
        "costSource": "TABLE",
        "agent": SCOUT,
        "price": {"id": price["id"], "modelPrefix": "priced-m"},
    }
    assert (await admin.client.query(EVENT, id="no such"))["usageEvent"] is None
    found = await totals(admin.client)
    assert (found["cost"], found["unpricedEvents"], found["requests"]) == ("0.50007", 2, 5)
    assert (await rebuild(ZoneInfo("UTC"), repair=False)).differences == []


async def test_the_longest_prefix_holds_and_its_provider_before_any(admin: Person) -> None:
    for prefix, prompt, provider in (
        ("priced-x", "1", None),
        ("priced-x", "2", "acme"),
        ("priced-x-large", "3", None),
        ("priced-x-large", "4", "acme"),
        ("priced-x-large-9", "5", "other"),
    ):
        await put(admin.client, prefix, prompt, "0", provider=provider)
    expected = {
        ("priced-x-small", None): "0.001",
        ("priced-x-small", "ACME"): "0.002",
        ("priced-x-large-9", None): "0.003",
        ("Priced-X-Large", "acme"): "0.004",
        ("priced-x-large-9", "acme"): "0.004",
        ("priced-x-large-99", "other"): "0.005",
        ("priced-x-large", "nobody"): "0.003",
        ("a-priced-x", None): None,
    }
    await collect(
        admin.client,
        *(
            event(str(number), model=model, provider=provider, promptTokens=1000)
            for number, (model, provider) in enumerate(expected)
        ),
    )

    assert [(await cost(admin.client, str(number)))[0] for number in range(len(expected))] == list(expected.values())


async def test_a_price_holds_from_its_day_until_the_next(admin: Person) -> None:
    await put(admin.client, "priced-d", "1", "0", validFrom="2026-03-01T00:00:00Z")
    await put(admin.client, "priced-d", "2", "0", validFrom="2026-04-01T00:00:00Z")
    await put(admin.client, "priced", "7", "0", validFrom="2026-02-01T00:00:00Z")
    moments = {
        "2026-01-31T23:59:59Z": None,
        "2026-02-28T23:59:59.999Z": "0.007",
        "2026-03-01T00:00:00Z": "0.001",
        "2026-03-31T23:59:59.999Z": "0.001",
        "2026-04-01T02:00:00+02:00": "0.002",
        "2026-10-01T00:00:00Z": "0.002",
    }
    await collect(admin.client, *(event(at, model="priced-d", promptTokens=1000, at=at) for at in moments))

    assert {at: (await cost(admin.client, at))[0] for at in moments} == moments


async def test_no_token_is_priced_twice(admin: Person) -> None:
    await put(admin.client, "priced-p", "1", "10", cached="0.1", cacheWrite="1.25", reasoning="20")
    await put(admin.client, "priced-q", "1", "10")
    counts = {
        "promptTokens": 1_000_000,
        "cachedTokens": 600_000,
        "cacheWriteTokens": 100_000,
        "completionTokens": 100_000,
        "reasoningTokens": 40_000,
    }
    await collect(admin.client, event("apart", model="priced-p", **counts), event("alike", model="priced-q", **counts))

    # 0.3 M at 1, 0.6 M at 0.1, 0.1 M at 1.25; 0.06 M at 10, 0.04 M at 20.
    assert await cost(admin.client, "apart") == ("1.885", "TABLE")
    assert await cost(admin.client, "alike") == ("2", "TABLE")


async def test_what_costs_more_than_an_event_may_is_unknown(admin: Person) -> None:
    await put(admin.client, "priced-z", "100000", "100000")

    await collect(
        admin.client,
        event("most", model="priced-z", promptTokens=10**7, completionTokens=0),
        event("more", model="priced-z", promptTokens=10**7 + 1, completionTokens=0),
        event("worst", model="priced-z", promptTokens=10**12, completionTokens=10**12),
    )

    assert await cost(admin.client, "most") == ("1000000", "TABLE")
    assert await cost(admin.client, "more") == (None, "UNKNOWN")
    assert await cost(admin.client, "worst") == (None, "UNKNOWN")


async def test_a_change_of_prices_leaves_what_is_stored(admin: Person) -> None:
    price = await put(admin.client, "priced-s", "1", "1")
    await collect(admin.client, event("1", model="priced-s"))

    await put(admin.client, "priced-s", "2", "2")
    again = await collect(admin.client, event("1", model="priced-s"), event("2", model="priced-s"))
    await admin.client.query(DELETE, id=price["id"])
    await collect(admin.client, event("3", model="priced-s"))

    assert (again["accepted"], again["duplicates"], [item["code"] for item in again["items"]]) == (1, 1, [None])
    assert await cost(admin.client, "1") == ("0.000015", "TABLE")
    assert await cost(admin.client, "2") == ("0.00003", "TABLE")
    assert await cost(admin.client, "3") == (None, "UNKNOWN")
    assert (await totals(admin.client))["cost"] == "0.000045"


async def test_a_price_set_on_one_process_is_felt_on_another(admin: Person, server: Server, mongodb_uri: str) -> None:
    async with Server(mongodb_uri, SECRET_KEY=server.settings["SECRET_KEY"]) as other:
        elsewhere = Client(admin.client.session, other.graphql, admin.client.token)
        await collect(elsewhere, event("0", model="priced-far"))
        await put(admin.client, "priced-far", "1", "1")
        number = 0
        while (await cost(elsewhere, str(number)))[1] == "UNKNOWN":
            number += 1
            await collect(elsewhere, event(str(number), model="priced-far"))

    assert await cost(admin.client, "0") == (None, "UNKNOWN")
    assert await cost(admin.client, str(number)) == ("0.000015", "TABLE")


async def test_prices_are_followed_again_after_the_database_was_killed(client: Client, tmp_path: Path) -> None:
    async with Mongod(tmp_path) as mongod, Server(mongod.uri) as one, Server(mongod.uri, **one.settings) as other:
        made = await launch(
            *("create-admin", "--email", "admin@example.com", "--mongodb-uri", mongod.uri),
            **{**one.settings, "ADMIN_PASSWORD": factories.PASSWORD},
        )
        await made.communicate()
        here = (await factories.sign_in(Client(client.session, one.graphql), email="admin@example.com")).client
        elsewhere = Client(client.session, other.graphql, here.token)
        await collect(elsewhere, event("0", model="priced-kill"))

        os.kill(mongod.pid, signal.SIGKILL)

        given = {"modelPrefix": "priced-kill", "validFrom": AGES_AGO, "prompt": "1", "completion": "1"}
        # Neither process may have noticed yet that the database is back.
        while (await here.execute(SET, {"input": given})).codes:
            pass
        number, found = 0, None
        while found != ("0.000015", "TABLE"):
            number += 1
            sent = {"source": "test", "events": [event(str(number), model="priced-kill")]}
            if not (await elsewhere.execute(COLLECT, {"input": sent})).codes:
                found = await cost(elsewhere, str(number))


# ---------------------------------------------------------------- the list that is shipped


async def test_the_shipped_list_stands_in_the_table_with_its_date(mongodb_uri: str, store: Database) -> None:
    await entries.keep_list(now=datetime.now(UTC))
    rows = {(row["model_prefix"], row["valid_from"]): row async for row in database.collection(Price).find({})}
    table = await entries.table()

    assert len(rows) == len(list(listed.lines())) > 40
    assert {row["listed_on"] for row in rows.values()} == {listed.ON.isoformat()}
    for model, at, prompt in (
        ("claude-opus-4-1-20250805", datetime(2025, 9, 1, tzinfo=UTC), 15),
        ("claude-opus-4-5-20251101", datetime(2026, 9, 1, tzinfo=UTC), 5),
        ("gpt-5-mini-2025-08-07", datetime(2026, 9, 1, tzinfo=UTC), Decimal("0.25")),
        ("o3-2025-04-16", datetime(2025, 6, 9, tzinfo=UTC), 10),
        ("o3-2025-04-16", datetime(2025, 6, 10, tzinfo=UTC), 2),
    ):
        found = table.find(model, None, at)
        assert found is not None
        assert found["prompt"] == prompt * 10**9
    # What is read from a cache is never dearer than what is not, and a completion never cheaper than a prompt.
    assert all((row["cached"] or 0) <= row["prompt"] <= row["completion"] for row in rows.values())


async def test_the_list_is_installed_once_and_leaves_what_admins_said(admin: Person, store: Database) -> None:
    await entries.keep_list(now=datetime.now(UTC))
    await entries.keep_list(now=datetime.now(UTC))
    count = await store.handle["prices"].count_documents({})
    changed = await put(admin.client, "gpt-5-mini", "9", "9")
    gone = (await put(admin.client, "claude-opus-5", "1", "1"))["id"]
    await admin.client.query(DELETE, id=gone)
    await database.collection(Price).update_one(
        {"model_prefix": "gpt-4o"}, {"$set": {"prompt": 1, "listed_on": "2020-01-01"}}
    )
    # As if a later list came.
    await database.collection(Migration).delete_many({})

    await entries.keep_list(now=datetime.now(UTC))

    assert await store.handle["prices"].count_documents({}) == count
    assert (await admin.client.query(NODE, id=changed["id"]))["node"]["prompt"] == "9"
    assert (await admin.client.query(NODE, id=gone))["node"] is None
    found = (await admin.client.query(PRICES, model="gpt-4o-2024"))["prices"]["nodes"]
    assert [(each["prompt"], each["listedOn"]) for each in found] == [("2.5", listed.ON.isoformat())]


async def test_a_server_starts_with_the_list(mongodb_uri: str, client: Client) -> None:
    async with Server(mongodb_uri, MONGODB_DBNAME="agenthub_prices") as fresh:
        person = await factories.sign_up(Client(client.session, fresh.graphql), email="first@example.com")
        found = (await person.client.query(PRICES, model="gpt-5-mini"))["prices"]["nodes"]
        await collect(person.client, event("1", model="gpt-5-mini-2025-08-07", promptTokens=1_000_000))
        priced = await cost(person.client, "1")

    assert {each["listedOn"] for each in found} == {listed.ON.isoformat()}
    assert [each["modelPrefix"] for each in found] == ["gpt-5", "gpt-5-mini"]
    assert priced == ("0.25001", "TABLE")


# ---------------------------------------------------------------- by hand


PREFIXES = ["h", "ha", "hal", "haley", "z"]
PROVIDERS = [None, "acme", "other"]
STARTS = [datetime(2026, month, 1, tzinfo=UTC) for month in (1, 2, 3)]
NANO = st.integers(0, 10**8)
LINES = st.lists(
    st.fixed_dictionaries(
        {
            "model_prefix": st.sampled_from(PREFIXES),
            "provider": st.sampled_from(PROVIDERS),
            "valid_from": st.sampled_from(STARTS),
            "prompt": NANO,
            "completion": NANO,
            "cached": st.none() | NANO,
            "cache_write": st.none() | NANO,
            "reasoning": st.none() | NANO,
        }
    ),
    max_size=25,
    unique_by=lambda line: (line["model_prefix"], line["provider"], line["valid_from"]),
)


@st.composite
def reports(draw: st.DrawFn) -> Event:
    """Draw an event whose parts fit into their wholes."""
    prompt, completion = draw(st.integers(0, 10**7)), draw(st.integers(0, 10**7))
    cached = draw(st.none() | st.integers(0, prompt))
    written = draw(st.none() | st.integers(0, prompt - (cached or 0)))
    return Event(
        source="s",
        id=str(draw(st.integers(0, 40))),
        agent=draw(st.sampled_from(["One", "Two"])),
        at=draw(st.datetimes(datetime(2025, 12, 1), datetime(2026, 4, 1), timezones=st.just(UTC))),  # noqa: DTZ001  # the zone is the strategy's
        model=draw(st.sampled_from([None, "h", "ha", "HAL", "hal-9000", "haley-1", "x"])),
        provider=draw(st.sampled_from([None, "acme", "ACME", "third"])),
        prompt_tokens=prompt,
        completion_tokens=completion,
        cached_tokens=cached,
        cache_write_tokens=written,
        reasoning_tokens=draw(st.none() | st.integers(0, completion)),
        cost=draw(st.none() | st.decimals(0, 10, places=9)),
    )


def by_hand(each: Event, lines: list[dict[str, Any]]) -> int | None:
    """Calculate what an event costs the slow way, straight from the words of the rule."""
    exact = Context(prec=60, rounding=ROUND_HALF_EVEN)
    if each.cost is not None:
        return int(each.cost.scaleb(9).to_integral_value(context=exact))
    assert each.at is not None
    fitting = [
        line
        for line in lines
        if (each.model or "").lower().startswith(line["model_prefix"])
        and line["provider"] in {None, (each.provider or "").lower() or None}
        and line["valid_from"] <= each.at
    ]
    if not fitting:
        return None
    line: Mapping[str, Any] = max(
        fitting, key=lambda one: (len(one["model_prefix"]), one["provider"] is not None, one["valid_from"])
    )
    cached, written, reasoning = each.cached_tokens or 0, each.cache_write_tokens or 0, each.reasoning_tokens or 0
    parts = [
        (each.prompt_tokens - cached - written, line["prompt"]),
        (cached, line["prompt"] if line["cached"] is None else line["cached"]),
        (written, line["prompt"] if line["cache_write"] is None else line["cache_write"]),
        (each.completion_tokens - reasoning, line["completion"]),
        (reasoning, line["completion"] if line["reasoning"] is None else line["reasoning"]),
    ]
    total = sum((Decimal(tokens) * Decimal(rate) for tokens, rate in parts), Decimal(0))
    return int(exact.divide(total, Decimal(10**6)).to_integral_value(context=exact))


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(lines=LINES, batch=st.lists(reports(), min_size=1, max_size=20, unique_by=lambda each: each.id))
async def test_the_cost_of_any_batch_is_what_the_table_says_by_hand(
    store: Database, lines: list[dict[str, Any]], batch: list[Event]
) -> None:
    await store.empty(keep=["sequences"])
    table = Table([{"_id": Key(), **line} for line in lines])
    counting = Counting(ZoneInfo("UTC"), price=lambda row: costs.price(row, table))

    async with Commits(UsageEvent) as commits:
        await commits.submit(counting, Batch(batch, datetime(2026, 4, 2, tzinfo=UTC)))

    right = {each.key: by_hand(each, lines) for each in batch}
    stored = {row["_id"]: row async for row in database.collection(UsageEvent).find({})}
    assert {key: row.get("cost_nanodollars") for key, row in stored.items()} == right
    for name in {each.agent for each in batch}:
        own = [right[each.key] for each in batch if each.agent == name]
        usage = (await agents.require(name))["usage"]
        assert usage.get("cost_nanodollars", 0) == sum(each or 0 for each in own)
        assert usage.get("unpriced_events", 0) == own.count(None)
    assert (await rebuild(ZoneInfo("UTC"), repair=False)).differences == []


@pytest.mark.parametrize("text", ["\ud800", "a\x00b", "x" * 90_000, "", "ﬁ" * 300])
async def test_texts_that_no_name_can_have_find_nothing(admin: Person, text: str) -> None:
    await put(admin.client, "priced-a", "1", "1")

    for document, variables in (
        (PRICES, {"model": text}),
        (EVENT, {"id": text}),
        (EVENT, {"id": "1", "source": text}),
        ("query ($model: String) { usageSummary(model: $model) { totals { requests } } }", {"model": text}),
    ):
        reply = await admin.client.execute(document, variables)
        assert reply.status in {200, 400}, reply.content[:300]
        assert set(reply.codes) <= {"BAD_USER_INPUT", "GRAPHQL_VALIDATION_FAILED"}
