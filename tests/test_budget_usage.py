"""Usage counts against budgets: with its thread or its reservation, exactly once, whatever else is said of it."""

import asyncio
from itertools import permutations
from typing import Any

import pytest

from graph.language import nodes
from models.store.database import Database, Key
from tests.client import Client
from tests.factories import Person
from tests.processes import Server, launch
from tests.test_budgets import NO_RESERVATION, NO_THREAD, budget, expire, opened, reserve, settle
from tests.test_thread_budgets import THREAD, alerts, talking, told


def stored(identifier: str) -> Key:
    """Give the key in a global id."""
    return nodes.key_of(nodes.split(identifier)[1])


COLLECT = """mutation ($events: [UsageEventInput!]!) { collectUsage(input: {events: $events}) {
  accepted duplicates rejected items { index outcome code field message } } }"""


def event(name: str, prompt: int, completion: int = 0, **more: object) -> dict[str, Any]:
    """Make an event."""
    return {"id": name, "agent": {"name": "Mouth"}, "promptTokens": prompt, "completionTokens": completion, **more}


async def collect(client: Client, *events: dict[str, Any]) -> Any:
    """Report events."""
    return (await client.query(COLLECT, events=list(events)))["collectUsage"]


async def test_events_of_a_thread_count_against_its_budget(user: Person) -> None:
    thread, other = await opened("a case"), await opened("another case")

    answer = await collect(
        user.client,
        event("1", 100, 20, thread=thread),
        event("2", 3, thread=" a case "),
        event("3", 1000, thread="somebody else's"),
        event("4", 1000, thread=NO_THREAD),
        event("5", 1000),
        event("6", 40, thread=other),
    )

    assert (answer["accepted"], answer["items"]) == (6, [])
    found = await budget(user.client, thread)
    assert (found["promptTokens"], found["completionTokens"], found["totalTokens"]) == (103, 20, 123)
    assert (await budget(user.client, other))["totalTokens"] == 40


async def test_an_event_counts_once_however_often_it_is_sent(user: Person) -> None:
    thread = await opened()

    await asyncio.gather(*(collect(user.client, event("1", 70, thread=thread)) for _ in range(6)))
    again = await collect(user.client, event("1", 70, thread=thread), event("1", 70, thread=thread))

    assert again["duplicates"] == 2
    assert (await budget(user.client, thread))["totalTokens"] == 70


async def test_usage_beyond_the_limit_counts_and_refuses_reservations(user: Person) -> None:
    thread = await talking(user.client, "Mouth", "Ear")

    await collect(user.client, event("1", 1500, thread=thread))

    assert (await user.client.query(THREAD, id=thread))["thread"]["status"] == "EXHAUSTED"
    assert (await budget(user.client, thread))["percentUsed"] == 150


@pytest.mark.parametrize(
    ("said", "total"),
    [
        ({"settled": (100, 50), "reported": [(100, 50)]}, 150),
        ({"settled": (100, 50), "reported": [(60, 30), (40, 20)]}, 150),
        ({"settled": (0, 0), "reported": [(60, 30), (40, 20)]}, 150),
        ({"settled": (100, 50), "reported": [(60, 30)]}, 150),
        ({"settled": (60, 30), "reported": [(100, 50)]}, 150),
    ],
)
@pytest.mark.parametrize("turned", [False, True])
async def test_a_call_that_is_settled_and_reported_counts_once(
    user: Person, said: dict[str, Any], total: int, *, turned: bool
) -> None:
    thread = await opened()
    reservation = (await reserve(user.client, thread, 500, "k"))["reservation"]["id"]

    async def report() -> None:
        for number, tokens in enumerate(said["reported"]):
            # With its thread or without, and again.
            more: dict[str, Any] = {"thread": thread} if number else {}
            for _ in range(2):
                await collect(user.client, event(f"{number}", *tokens, reservation=reservation, **more))

    if turned:
        await report()
        assert (await budget(user.client, thread))["reservedTokens"] == 0
    settled = await settle(user.client, reservation, *said["settled"])
    if not turned:
        await report()

    found = await budget(user.client, thread)
    assert settled["reservation"]["status"] == "SETTLED"
    assert (found["totalTokens"], found["reservedTokens"]) == (total, 0)


async def test_whatever_comes_first_the_same_is_counted(user: Person) -> None:
    words = [("settle", 90, 60), ("1", 70, 10), ("2", 10, 50)]

    for number, order in enumerate(permutations(words)):
        thread = await opened(f"case {number}")
        reservation = (await reserve(user.client, thread, 500, "k"))["reservation"]["id"]
        for name, prompt, completion in order:
            if name == "settle":
                await settle(user.client, reservation, prompt, completion)
            else:
                await collect(user.client, event(f"{number} {name}", prompt, completion, reservation=reservation))
        found = await budget(user.client, thread)
        assert (found["promptTokens"], found["completionTokens"]) == (90, 60)


async def test_a_reservation_says_more_than_a_thread_that_is_none_of_ours(user: Person) -> None:
    thread = await opened()
    reservation = (await reserve(user.client, thread, 900, "k"))["reservation"]["id"]

    answer = await collect(user.client, event("1", 30, reservation=reservation, thread="somebody else's"))

    assert answer["accepted"] == 1
    assert (await budget(user.client, thread))["totalTokens"] == 30


async def test_an_event_that_settles_late_counts(user: Person, store: Database) -> None:
    thread = await opened()
    reservation = (await reserve(user.client, thread, 900, "k"))["reservation"]["id"]
    await expire(store, reservation)

    await collect(user.client, event("1", 300, reservation=reservation))

    found = await budget(user.client, thread)
    assert (found["totalTokens"], found["lateSettlements"], found["unsettledReservations"]) == (300, 1, 0)


@pytest.mark.parametrize(
    ("wrong", "code", "field"),
    [
        ({"reservation": "rubbish"}, "BAD_USER_INPUT", "reservation"),
        ({"reservation": NO_THREAD}, "BAD_USER_INPUT", "reservation"),
        ({"reservation": NO_RESERVATION}, "NOT_FOUND", "reservation"),
        ({"thread": "another case"}, "BAD_USER_INPUT", "thread"),
    ],
)
async def test_an_event_with_a_wrong_reservation_is_refused_alone(
    user: Person, wrong: dict[str, Any], code: str, field: str
) -> None:
    thread = await opened()
    await opened("another case")
    reservation = (await reserve(user.client, thread, 500, "k"))["reservation"]["id"]

    answer = await collect(
        user.client,
        event("1", 10, **{"reservation": reservation, **wrong}),
        event("2", 20, reservation=reservation, thread=thread),
    )

    (item,) = answer["items"]
    assert (answer["accepted"], answer["rejected"]) == (1, 1)
    assert (item["index"], item["outcome"], item["code"], item["field"]) == (0, "REJECTED", code, field)
    assert (await budget(user.client, thread))["totalTokens"] == 20
    # It may be sent again, mended.
    mended = await collect(user.client, event("1", 10, reservation=reservation))
    assert mended["accepted"] == 1
    assert (await budget(user.client, thread))["totalTokens"] == 30


async def test_usage_reported_to_two_processes_crosses_each_percent_once(
    server: Server, mongodb_uri: str, user: Person, store: Database
) -> None:
    thread = await talking(user.client, "Mouth", "Ear")

    async with Server(mongodb_uri, **server.settings) as another:
        doors = [user.client, Client(user.client.session, another.graphql, user.access_token)]
        await asyncio.gather(
            *(collect(doors[number % 2], event(f"{number // 2}", 25, thread=thread)) for number in range(80))
        )

    assert (await budget(user.client, thread))["totalTokens"] == 1000
    assert [(each["percent"], each["agent"]["name"]) for each in await alerts(user.client)] == [
        (percent, "Mouth") for percent in (75, 90, 95, 100)
    ]
    assert [(name, percent) for name, percent, _, _ in await told(store)] == [
        (name, percent) for percent in (75, 90, 95, 100) for name in ("Mouth", "Ear")
    ]
    assert (await user.client.query(THREAD, id=thread))["thread"]["status"] == "EXHAUSTED"


# ---------------------------------------------------------------- counted again


async def again(*arguments: str, uri: str) -> str:
    """Have the command line count again, and give what it says."""
    process = await launch(
        "rebuild", "budgets", *arguments, MONGODB_URI=uri, MONGODB_DBNAME="agenthub_test", LOG_LEVEL="warning"
    )
    said, complaints = await process.communicate()
    return (said + complaints).decode().strip()


async def test_what_is_kept_wrongly_is_said_and_repaired(user: Person, store: Database, mongodb_uri: str) -> None:
    thread, other = await talking(user.client, "Mouth", "Ear"), await opened("another case")
    held = [(await reserve(user.client, thread, 100, f"{number}"))["reservation"]["id"] for number in range(3)]
    await collect(
        user.client,
        event("1", 500, 100, thread=thread),
        event("2", 80, 10, reservation=held[0]),
        event("3", 50, 5, reservation=held[1]),
        event("4", 7, thread=other),
    )
    await settle(user.client, held[0], 40, 0)
    right = await budget(user.client, thread)
    assert await again("--check", uri=mongodb_uri) == "4 events, 0 figures differed."

    rows = store.handle["budgets"]
    await rows.update_one(
        {"_id": f"THREAD:{stored(thread)}"}, {"$inc": {"prompt_tokens": -600, "completion_tokens": 9}}
    )
    await store.handle["reservations"].update_one({"_id": stored(held[1])}, {"$set": {"reported": None}})
    said = await again("--check", uri=mongodb_uri)
    repaired = await again(uri=mongodb_uri)

    assert said.splitlines() == [
        f"reservation {stored(held[1])}: prompt_tokens was 0, is 50",
        f"reservation {stored(held[1])}: completion_tokens was 0, is 5",
        f"budget THREAD:{stored(thread)}: prompt_tokens was 30, is 630",
        f"budget THREAD:{stored(thread)}: completion_tokens was 124, is 115",
        "4 events, 4 figures differed.",
    ]
    assert repaired.endswith("4 events, 4 figures differed, repaired.")
    assert await again("--check", uri=mongodb_uri) == "4 events, 0 figures differed."
    assert await budget(user.client, thread) == right
    # 745 of 1,000: nobody had to be told, not even of the repair.
    assert await alerts(user.client) == []


async def test_a_repair_that_exhausts_a_thread_stops_it(user: Person, store: Database, mongodb_uri: str) -> None:
    thread = await talking(user.client, "Mouth", "Ear")
    await collect(user.client, event("1", 500, thread=thread))
    await store.handle["usage_events"].update_one({}, {"$set": {"prompt_tokens": 1000}})

    await again(uri=mongodb_uri)

    assert (await user.client.query(THREAD, id=thread))["thread"]["status"] == "EXHAUSTED"
    assert [each["percent"] for each in await alerts(user.client)] == [75, 90, 95, 100]
