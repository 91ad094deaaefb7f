"""Budgets: never more is held and spent than there is, whoever asks at once; what was spent counts once."""

import asyncio
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from graph.language import nodes
from models.budgets import kept
from models.budgets.accounts import MOST_HOLDS
from models.budgets.kept import Scope
from models.store import database
from models.store.database import Database, Key
from models.threads import conversations
from tests.client import Client, GraphQLErrors
from tests.factories import Person

BUDGET = """fragment B on ThreadBudget {
  maxTokens promptTokens completionTokens totalTokens reservedTokens remaining percentUsed exhausted
  unsettledReservations unsettledTokens lateSettlements }"""
RESERVE = (
    """mutation ($input: ReserveTokensInput!) { reserveTokens(input: $input) {
  reservation { id tokens status createdAt expiresAt settledAt late } budget { ...B } } } """
    + BUDGET
)
SETTLE = (
    """mutation ($input: SettleTokensInput!) { settleTokens(input: $input) {
  reservation { id status late } budget { ...B } } } """
    + BUDGET
)
EXTEND = """mutation ($input: ExtendReservationInput!) { extendReservation(input: $input) {
  reservation { id status expiresAt } } }"""
LIMIT = """mutation ($input: SetThreadBudgetInput!) { setThreadBudget(input: $input) { budget { ...B } } } """ + BUDGET
THREAD = """query ($id: ID!) { thread(id: $id) { status budget { thread { id } ...B } } } """ + BUDGET
BUDGETS = """query ($first: Int, $after: String) { threadBudgets(first: $first, after: $after) {
  totalCount pageInfo { hasNextPage endCursor } nodes { thread { key } percentUsed } } }"""


async def opened(name: str = "a case", *, limit: int = 1000) -> str:
    """Open a thread with a limit, and give its id."""
    row = await conversations.open_now(conversations.named(name), limit=limit, now=datetime.now(UTC))
    return conversations.id_of(row["_id"])


async def reserve(client: Client, thread: str, tokens: int, key: str, **more: object) -> Any:
    """Reserve tokens, and give the payload."""
    said = {"thread": thread, "tokens": tokens, "idempotencyKey": key, **more}
    return (await client.query(RESERVE, input=said))["reserveTokens"]


async def settle(client: Client, reservation: str, prompt: int, completion: int) -> Any:
    """Settle a reservation, and give the payload."""
    said = {"reservation": reservation, "promptTokens": prompt, "completionTokens": completion}
    return (await client.query(SETTLE, input=said))["settleTokens"]


async def budget(client: Client, thread: str) -> Any:
    """Read a thread's budget."""
    return (await client.query(THREAD, id=thread))["thread"]["budget"]


async def close(thread: str) -> None:
    """Close a thread's budget, as whoever closes the thread does."""
    scope = Scope.thread(nodes.decode(thread, "Thread"))
    await database.transaction(kept.Budget, lambda session: kept.close(scope, session=session))


async def expire(store: Database, reservation: str) -> None:
    """Let a reservation's time have passed, as if it had been made an hour earlier."""
    await shift(store, reservation, timedelta(hours=-1))


async def shift(store: Database, reservation: str, by: timedelta) -> None:
    """Move the end of a reservation."""
    key = nodes.decode(reservation, "Reservation")
    row = await store.handle["reservations"].find_one({"_id": key})
    assert row is not None
    end = row["expires_at"] + by
    await store.handle["reservations"].update_one({"_id": key}, {"$set": {"expires_at": end}})
    await store.handle["budgets"].update_one({"holds.key": key}, {"$set": {"holds.$.expires_at": end}})


# ---------------------------------------------------------------- reading


async def test_every_thread_has_a_budget(user: Person) -> None:
    thread = await opened(limit=1000)

    found = await budget(user.client, thread)

    assert found == {
        "thread": {"id": thread},
        "maxTokens": 1000,
        "promptTokens": 0,
        "completionTokens": 0,
        "totalTokens": 0,
        "reservedTokens": 0,
        "remaining": 1000,
        "percentUsed": 0,
        "exhausted": False,
        "unsettledReservations": 0,
        "unsettledTokens": 0,
        "lateSettlements": 0,
    }
    assert (await user.client.query("{ defaultThreadTokens }"))["defaultThreadTokens"] == 100_000


async def test_budgets_are_listed_hottest_first_and_by_page(user: Person) -> None:
    for number, spent in enumerate((100, 900, 500, 0, 500)):
        held = await reserve(user.client, await opened(f"case {number}"), 1000, "k")
        await settle(user.client, held["reservation"]["id"], spent, 0)

    pages: list[Any] = []
    after = None
    while not pages or pages[-1]["pageInfo"]["hasNextPage"]:
        pages.append((await user.client.query(BUDGETS, first=2, after=after))["threadBudgets"])
        after = pages[-1]["pageInfo"]["endCursor"]

    assert [each["percentUsed"] for page in pages for each in page["nodes"]] == [90, 50, 50, 10, 0]
    assert {each["thread"]["key"] for page in pages for each in page["nodes"]} == {f"case {n}" for n in range(5)}
    assert pages[0]["totalCount"] == 5


# ---------------------------------------------------------------- reserving and settling


async def test_what_is_reserved_is_held_until_it_is_settled(user: Person) -> None:
    thread = await opened()

    held = await reserve(user.client, thread, 600, "k", leaseSeconds=60)
    settled = await settle(user.client, held["reservation"]["id"], 100, 50)

    assert (held["reservation"]["tokens"], held["reservation"]["status"]) == (600, "OPEN")
    span = datetime.fromisoformat(held["reservation"]["expiresAt"]) - datetime.fromisoformat(
        held["reservation"]["createdAt"]
    )
    assert span == timedelta(seconds=60)
    assert (held["budget"]["reservedTokens"], held["budget"]["remaining"]) == (600, 400)
    assert settled["reservation"] == {"id": held["reservation"]["id"], "status": "SETTLED", "late": False}
    assert settled["budget"]["promptTokens"] == 100
    assert settled["budget"]["completionTokens"] == 50
    assert settled["budget"]["totalTokens"] == 150
    assert settled["budget"]["reservedTokens"] == 0
    assert settled["budget"]["remaining"] == 850
    assert settled["budget"]["percentUsed"] == 15


async def test_a_refusal_says_limit_spent_and_reserved(user: Person) -> None:
    thread = await opened()
    first = await reserve(user.client, thread, 300, "1")
    await settle(user.client, first["reservation"]["id"], 250, 0)
    await reserve(user.client, thread, 700, "2")

    with pytest.raises(GraphQLErrors) as caught:
        await reserve(user.client, thread, 51, "3")

    assert caught.value.code == "BUDGET_EXHAUSTED"
    extensions = caught.value.errors[0]["extensions"]
    assert {name: extensions[name] for name in ("limit", "spent", "reserved")} == {
        "limit": 1000,
        "spent": 250,
        "reserved": 700,
    }
    assert "50 are left" in caught.value.message
    assert (await reserve(user.client, thread, 50, "4"))["budget"]["remaining"] == 0


async def test_the_same_key_holds_once(user: Person) -> None:
    thread, other = await opened(), await opened("another case")

    answers = await asyncio.gather(*(reserve(user.client, thread, 400, "k") for _ in range(8)))
    elsewhere = await reserve(user.client, other, 400, "k")

    assert len({each["reservation"]["id"] for each in answers}) == 1
    assert elsewhere["reservation"]["id"] != answers[0]["reservation"]["id"]
    assert (await budget(user.client, thread))["reservedTokens"] == 400
    await settle(user.client, answers[0]["reservation"]["id"], 10, 0)
    again = await reserve(user.client, thread, 400, "k")
    assert again["reservation"]["status"] == "SETTLED"
    assert again["budget"]["reservedTokens"] == 0


async def test_a_key_that_asks_for_something_else_is_refused(user: Person) -> None:
    thread = await opened()
    await reserve(user.client, thread, 400, "k")

    with pytest.raises(GraphQLErrors) as caught:
        await reserve(user.client, thread, 401, "k")

    assert (caught.value.code, caught.value.field) == ("CONFLICT", "idempotencyKey")
    assert (await budget(user.client, thread))["reservedTokens"] == 400


async def test_a_settlement_counts_once(user: Person) -> None:
    thread = await opened()
    reservation = (await reserve(user.client, thread, 400, "k"))["reservation"]["id"]

    answers = await asyncio.gather(*(settle(user.client, reservation, 70, 30) for _ in range(8)))
    with pytest.raises(GraphQLErrors) as caught:
        await settle(user.client, reservation, 70, 31)

    assert {each["budget"]["totalTokens"] for each in answers} == {100}
    assert (caught.value.code, caught.value.field) == ("CONFLICT", "reservation")
    assert (await budget(user.client, thread))["totalTokens"] == 100


async def test_a_call_that_was_not_made_gives_all_back(user: Person) -> None:
    thread = await opened()
    held = await reserve(user.client, thread, 1000, "k")

    given_back = await settle(user.client, held["reservation"]["id"], 0, 0)

    assert (given_back["budget"]["totalTokens"], given_back["budget"]["remaining"]) == (0, 1000)


async def test_what_is_spent_beyond_the_reservation_counts(user: Person) -> None:
    thread = await opened()
    held = await reserve(user.client, thread, 900, "k")

    settled = await settle(user.client, held["reservation"]["id"], 1000, 250)

    assert settled["budget"]["totalTokens"] == 1250
    assert settled["budget"]["percentUsed"] == 125
    assert (settled["budget"]["remaining"], settled["budget"]["exhausted"]) == (0, True)


# ---------------------------------------------------------------- leases


async def test_what_nobody_settles_in_time_is_given_back_and_shown(user: Person, store: Database) -> None:
    thread = await opened()
    lost = await reserve(user.client, thread, 900, "1")
    await expire(store, lost["reservation"]["id"])

    shown = await budget(user.client, thread)
    taken = await reserve(user.client, thread, 1000, "2")
    repeated = await reserve(user.client, thread, 900, "1")

    for each in (shown, taken["budget"]):
        assert (each["unsettledReservations"], each["unsettledTokens"]) == (1, 900)
    assert (shown["reservedTokens"], shown["remaining"]) == (0, 1000)
    assert taken["budget"]["reservedTokens"] == 1000
    assert repeated["reservation"]["status"] == "EXPIRED"


@pytest.mark.parametrize("dropped", [False, True])
async def test_a_late_settlement_counts_once(user: Person, store: Database, *, dropped: bool) -> None:
    thread = await opened()
    reservation = (await reserve(user.client, thread, 900, "1"))["reservation"]["id"]
    await expire(store, reservation)
    if dropped:
        # A later change has taken it out of the budget.
        await reserve(user.client, thread, 1, "2")

    first = await settle(user.client, reservation, 300, 200)
    again = await settle(user.client, reservation, 300, 200)

    for each in (first, again):
        assert each["reservation"] == {"id": reservation, "status": "SETTLED", "late": True}
        assert each["budget"]["totalTokens"] == 500
        assert (each["budget"]["unsettledReservations"], each["budget"]["lateSettlements"]) == (0, 1)
        assert each["budget"]["unsettledTokens"] == 0


async def test_a_lease_can_be_extended_while_it_lasts(user: Person, store: Database) -> None:
    thread = await opened()
    reservation = (await reserve(user.client, thread, 900, "1", leaseSeconds=1))["reservation"]

    longer = (await user.client.query(EXTEND, input={"reservation": reservation["id"], "leaseSeconds": 3600}))[
        "extendReservation"
    ]["reservation"]
    await shift(store, reservation["id"], timedelta(minutes=-30))
    held = await budget(user.client, thread)
    await expire(store, reservation["id"])
    with pytest.raises(GraphQLErrors) as caught:
        await user.client.query(EXTEND, input={"reservation": reservation["id"]})

    assert longer["status"] == "OPEN"
    assert longer["expiresAt"] > reservation["expiresAt"]
    assert held["reservedTokens"] == 900
    assert (caught.value.code, caught.value.field) == ("CONFLICT", "reservation")


# ---------------------------------------------------------------- limits


async def test_a_raised_limit_is_there_at_once(admin: Person) -> None:
    thread = await opened()
    await settle(admin.client, (await reserve(admin.client, thread, 1000, "1"))["reservation"]["id"], 1000, 0)

    raised = (await admin.client.query(LIMIT, input={"thread": thread, "maxTokens": 4000}))["setThreadBudget"]["budget"]
    held = await reserve(admin.client, thread, 3000, "2")

    assert (raised["maxTokens"], raised["percentUsed"], raised["exhausted"]) == (4000, 25, False)
    assert held["budget"]["remaining"] == 0


async def test_a_limit_below_what_is_spent_exhausts(admin: Person) -> None:
    thread = await opened()
    await settle(admin.client, (await reserve(admin.client, thread, 500, "1"))["reservation"]["id"], 500, 0)

    lowered = (await admin.client.query(LIMIT, input={"thread": thread, "maxTokens": 400}))["setThreadBudget"]["budget"]

    assert (lowered["exhausted"], lowered["remaining"], lowered["percentUsed"]) == (True, 0, 125)


# ---------------------------------------------------------------- refusals

NO_THREAD = "VGhyZWFkOjY1NjU2NTY1NjU2NTY1NjU2NTY1NjU2NQ=="
NO_RESERVATION = "UmVzZXJ2YXRpb246NjU2NTY1NjU2NTY1NjU2NTY1NjU2NTY1"


@pytest.mark.parametrize(
    ("changes", "code", "field"),
    [
        ({"thread": "rubbish"}, "BAD_USER_INPUT", "thread"),
        ({"thread": NO_THREAD}, "NOT_FOUND", "thread"),
        ({"thread": NO_RESERVATION}, "BAD_USER_INPUT", "thread"),
        ({"tokens": 0}, "BAD_USER_INPUT", "tokens"),
        ({"tokens": -1}, "BAD_USER_INPUT", "tokens"),
        ({"tokens": 10**12 + 1}, "BAD_USER_INPUT", "tokens"),
        ({"idempotencyKey": ""}, "BAD_USER_INPUT", "idempotencyKey"),
        ({"idempotencyKey": "a\nb"}, "BAD_USER_INPUT", "idempotencyKey"),
        ({"idempotencyKey": "a\u2028b"}, "BAD_USER_INPUT", "idempotencyKey"),
        ({"idempotencyKey": "x" * 201}, "BAD_USER_INPUT", "idempotencyKey"),
        ({"leaseSeconds": 0}, "BAD_USER_INPUT", "leaseSeconds"),
        ({"leaseSeconds": 3601}, "BAD_USER_INPUT", "leaseSeconds"),
        ({"agent": {"name": "Nobody"}}, "NOT_FOUND", "agent"),
    ],
)
async def test_a_reservation_that_makes_no_sense(user: Person, changes: dict[str, Any], code: str, field: str) -> None:
    thread = await opened()

    with pytest.raises(GraphQLErrors) as caught:
        await user.client.query(RESERVE, input={"thread": thread, "tokens": 1, "idempotencyKey": "k", **changes})

    assert (caught.value.code, caught.value.field) == (code, field)
    assert (await budget(user.client, thread))["reservedTokens"] == 0


@pytest.mark.parametrize(
    ("changes", "code", "field"),
    [
        ({"reservation": "rubbish"}, "BAD_USER_INPUT", "reservation"),
        ({"reservation": NO_RESERVATION}, "NOT_FOUND", "reservation"),
        ({"promptTokens": -1}, "BAD_USER_INPUT", "promptTokens"),
        ({"completionTokens": 10**12 + 1}, "BAD_USER_INPUT", "completionTokens"),
    ],
)
async def test_a_settlement_that_makes_no_sense(user: Person, changes: dict[str, Any], code: str, field: str) -> None:
    thread = await opened()
    reservation = (await reserve(user.client, thread, 900, "1"))["reservation"]["id"]

    with pytest.raises(GraphQLErrors) as caught:
        await user.client.query(SETTLE, input={"reservation": reservation, "promptTokens": 1, **changes})

    assert (caught.value.code, caught.value.field) == (code, field)
    assert (await budget(user.client, thread))["reservedTokens"] == 900


@pytest.mark.parametrize("tokens", [0, -1, 10**12 + 1])
async def test_a_limit_is_a_number_of_tokens(admin: Person, tokens: int) -> None:
    thread = await opened()

    with pytest.raises(GraphQLErrors) as caught:
        await admin.client.query(LIMIT, input={"thread": thread, "maxTokens": tokens})

    assert (caught.value.code, caught.value.field) == ("BAD_USER_INPUT", "maxTokens")
    assert (await budget(admin.client, thread))["maxTokens"] == 1000


async def test_a_closed_budget_reserves_nothing_and_settles_what_is_open(user: Person) -> None:
    thread = await opened()
    held = await reserve(user.client, thread, 100, "1")
    await close(thread)

    with pytest.raises(GraphQLErrors) as caught:
        await reserve(user.client, thread, 1, "2")
    settled = await settle(user.client, held["reservation"]["id"], 60, 0)

    assert caught.value.code == "CONFLICT"
    assert settled["budget"]["totalTokens"] == 60


async def test_a_budget_has_so_many_reservations_open_at_once(user: Person, store: Database) -> None:
    thread = await opened(limit=10_000)
    first = await reserve(user.client, thread, 1, "0", leaseSeconds=600)
    row = await store.handle["budgets"].find_one({})
    assert row is not None
    (hold,) = row["holds"]
    later = {**hold, "expires_at": hold["expires_at"] + timedelta(hours=1)}
    more = [{**later, "key": Key()} for _ in range(MOST_HOLDS - 1)]
    await store.handle["budgets"].update_one({}, {"$push": {"holds": {"$each": more}}})

    with pytest.raises(GraphQLErrors) as caught:
        await reserve(user.client, thread, 1, "1")
    await settle(user.client, first["reservation"]["id"], 0, 0)
    taken = await reserve(user.client, thread, 1, "1")

    assert caught.value.code == "RATE_LIMITED"
    # Until the first of them ends.
    assert 0 < caught.value.errors[0]["extensions"]["retryAfterMs"] <= 600_000
    assert taken["budget"]["reservedTokens"] == MOST_HOLDS
