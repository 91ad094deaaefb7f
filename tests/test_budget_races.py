"""Budgets hold whoever asks at once and whatever dies: no more is ever held and spent than there is, nothing sticks."""

import asyncio
import itertools
import os
import random
import secrets
from collections.abc import Sequence
from contextlib import suppress
from typing import Any, Final

import aiohttp

from tests import factories, processes
from tests.client import Client
from tests.processes import Server
from tests.test_budget_usage import COLLECT, again
from tests.test_budgets import BUDGET, RESERVE, SETTLE, opened
from tests.test_thread_budgets import alerts, talking

STATUS = """query ($id: ID!) { node(id: $id) { ... on Reservation { status budget { ...B } } } } """ + BUDGET
LIST = """{ threadBudgets(first: 1) { nodes { ...B } } } """ + BUDGET

CALLERS: Final = 100
TOKENS: Final = 2_000
LIMIT: Final = 100_000
LEASE_S: Final = 2
RESERVATIONS: Final = 200
CROWD: Final = 20
KILLS: Final = processes.KILLS // 2
DEADLINE_S: Final = 120.0


def check(budget: dict[str, Any]) -> None:
    """Check that no more is spent and held than there is; no settlement here says more than was held."""
    assert budget["totalTokens"] + budget["reservedTokens"] <= budget["maxTokens"], budget


async def test_a_hundred_callers_of_two_processes_never_get_more_than_the_limit_between_them(
    server: Server, mongodb_uri: str, client: Client
) -> None:
    thread = await opened(limit=LIMIT)
    admin = await factories.sign_in_admin(client)
    spent = 0
    granted = 0

    async with Server(mongodb_uri, **server.settings) as another:
        doors = [admin.client, Client(client.session, another.graphql, admin.access_token)]

        async def call(number: int) -> None:
            nonlocal spent, granted
            dice = random.Random(number)
            for turn in range(1000):
                said = {"thread": thread, "tokens": TOKENS, "idempotencyKey": f"{number}-{turn}"}
                reply = await dice.choice(doors).execute(RESERVE, {"input": said})
                if reply.codes:
                    assert reply.codes == ["BUDGET_EXHAUSTED"]
                    extensions = reply.body["errors"][0]["extensions"]
                    assert extensions["spent"] + extensions["reserved"] + TOKENS > extensions["limit"] == LIMIT
                    return
                held = reply.body["data"]["reserveTokens"]
                check(held["budget"])
                granted += 1
                used = dice.randrange(TOKENS + 1)
                settled = {"reservation": held["reservation"]["id"], "promptTokens": used}
                # Settled twice at once, through either door.
                answers = await asyncio.gather(
                    *(dice.choice(doors).query(SETTLE, input=settled) for _ in range(dice.choice([1, 2])))
                )
                for each in answers:
                    check(each["settleTokens"]["budget"])
                spent += used

        await asyncio.gather(*(call(number) for number in range(CALLERS)))

    budget = (await admin.client.query(LIST))["threadBudgets"]["nodes"][0]
    assert (budget["totalTokens"], budget["reservedTokens"]) == (spent, 0)
    assert LIMIT - TOKENS < spent <= LIMIT
    assert granted > LIMIT // TOKENS


class Crowd:
    """Callers that reserve and settle through servers that are killed; remembers what it was told."""

    def __init__(self, doors: Sequence[Client], thread: str) -> None:
        self._doors = doors
        self._thread = thread
        self._progress = asyncio.Condition()
        self._kills = 0
        self.spent = 0
        self.ended = 0
        self.lost = 0

    async def call(self, number: int) -> None:
        """Reserve and settle as often as it takes; some die with what they hold, some settle after their time."""
        dice = random.Random(number)
        for turn in range(RESERVATIONS // CROWD):
            # Kept in step with the kills, so that all of them meet work.
            async with self._progress:
                await self._progress.wait_for(lambda: self.ended * KILLS < (self._kills + 1) * RESERVATIONS)
            said = {"thread": self._thread, "tokens": TOKENS, "idempotencyKey": f"{number}-{turn}"}
            held = await self._ask(RESERVE, {"input": {**said, "leaseSeconds": LEASE_S}})
            check(held["reserveTokens"]["budget"])
            reservation = held["reserveTokens"]["reservation"]["id"]
            fate, used, times = dice.random(), dice.randrange(TOKENS // 2), dice.choice([1, 2, 3])
            if fate < 0.2:
                self.lost += 1
            else:
                if fate < 0.3:
                    await self._expired(reservation)
                # Settled, reported, or both, and some of it again: the same is counted, once.
                said = {"reservation": reservation, "promptTokens": used}
                report = {"events": [{"id": reservation, "agent": {"name": "Mouth"}, **said}]}
                ways: list[tuple[str, dict[str, Any]]] = [(SETTLE, {"input": said}), (COLLECT, report)]
                for document, variables in dice.choices(ways, k=times):
                    await self._ask(document, variables)
                self.spent += used
            async with self._progress:
                self.ended += 1
                self._progress.notify_all()

    async def kill(self, victims: Sequence[Server], dice: random.Random) -> None:
        """Kill the servers in turn, each at a random moment of the work."""
        for number in range(KILLS):
            wanted = number * RESERVATIONS // KILLS + dice.randrange(RESERVATIONS // KILLS)
            await self._ended(wanted)
            for _ in range(dice.randrange(300)):
                await asyncio.sleep(0)
            victim = victims[number % len(victims)]
            await victim.kill()
            await victim.start()
            async with self._progress:
                self._kills += 1
                self._progress.notify_all()

    async def _ended(self, wanted: int) -> None:
        async with self._progress:
            await self._progress.wait_for(lambda: self.ended >= wanted)

    async def _expired(self, reservation: str) -> None:
        while (await self._ask(STATUS, {"id": reservation}))["node"]["status"] == "OPEN":  # noqa: ASYNC110  # its end is the clock's
            await asyncio.sleep(0.05)

    async def _ask(self, document: str, variables: dict[str, Any]) -> Any:
        """Ask until there is an answer, as a careful client does: of what is held elsewhere, some comes back."""
        for door in itertools.cycle(self._doors):
            with suppress(aiohttp.ClientError):
                reply = await door.execute(document, variables)
                assert set(reply.codes) <= {"BUDGET_EXHAUSTED", "SERVICE_UNAVAILABLE"}, reply.body
                if not reply.codes:
                    return reply.body["data"]
            await asyncio.sleep(0.02)
        raise AssertionError


async def test_killed_servers_pass_no_budget_and_hold_nothing_longer_than_its_lease(
    server: Server, mongodb_uri: str, client: Client
) -> None:
    seed = int(os.environ.get("CRASH_SEED") or secrets.randbelow(2**32))
    try:
        async with (
            asyncio.timeout(DEADLINE_S),
            Server(mongodb_uri, **server.settings) as one,
            Server(mongodb_uri, **server.settings) as other,
        ):
            person = await factories.sign_up(client, email="caller@example.com")
            thread = await talking(person.client, "Mouth", "Ear", limit=LIMIT)
            doors = [Client(client.session, each.graphql, person.access_token) for each in (one, other)]
            crowd = Crowd(doors, thread)

            async with asyncio.TaskGroup() as tasks:
                for number in range(CROWD):
                    tasks.create_task(crowd.call(number))
                tasks.create_task(crowd.kill((one, other), random.Random(seed)))

            # What those held who died comes back by itself.
            async with asyncio.timeout(LEASE_S + 5):
                while (budget := (await person.client.query(LIST))["threadBudgets"]["nodes"][0])["reservedTokens"]:
                    check(budget)
                    await asyncio.sleep(0.1)
        check(budget)
        assert crowd.ended == RESERVATIONS
        assert budget["totalTokens"] == crowd.spent
        assert budget["unsettledReservations"] == crowd.lost
        assert budget["unsettledTokens"] == crowd.lost * TOKENS
        assert (await again("--check", uri=mongodb_uri)).endswith(" 0 figures differed.")
        reached = [percent for percent in (75, 90, 95, 100) if crowd.spent * 100 >= LIMIT * percent]
        assert [each["percent"] for each in await alerts(person.client)] == reached
    except BaseException as error:
        error.add_note(f"CRASH_SEED={seed}")
        raise
