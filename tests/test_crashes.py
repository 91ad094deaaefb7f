"""What is acknowledged is counted once, whatever dies: the server and the database are killed at random moments.

A failure tells its seed: run again with CRASH_SEED set to it, and the same load meets kills drawn from the same dice.
"""

import asyncio
import itertools
import os
import random
import secrets
import signal
import sys
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any, Final

import aiohttp
from pymongo.asynchronous import topology

from server.mongod import Mongod
from tests import factories
from tests.client import Client
from tests.processes import KILLS, ROOT, Server

COLLECT = """
mutation ($input: CollectUsageInput!) {
  collectUsage(input: $input) { accepted duplicates rejected items { index outcome code } }
}
"""
USAGE = """
query ($by: AgentBy!, $from: Date, $to: Date) {
  agent(by: $by) {
    usage { requests users conversations promptTokens completionTokens cost }
    usageTimeline(from: $from, to: $to) { day requests promptTokens completionTokens cost }
  }
  usage(agent: $by, from: $from, to: $to) {
    totals { requests users conversations promptTokens completionTokens cost }
    byModel { model totals { requests promptTokens completionTokens cost } }
  }
}
"""
ALERTS = "query { alerts(first: 100) { nodes { agent { name } } } }"

MONGOD_KILLS: Final = 5
STREAMS: Final = 3
"""Sources of events; two senders share each, so that one's events are the other's duplicates, at the same moment."""
BATCH: Final = 20
HOT_AGENTS: Final = ("Scout", "Clerk", "Guide")
MODELS: Final = ("gpt-5", "claude-opus-5")
FIRST_DAY: Final = date(2025, 3, 30)
DAYS: Final = 4
THRESHOLD: Final = 500
RESEND_SECONDS: Final = 0.02
DEADLINE_SECONDS: Final = 120.0

Event = dict[str, Any]
Figures = dict[str, Any]


class Load:
    """Senders that send and send again until each batch is answered; remembers what was sent and what was said."""

    def __init__(self, clients: Sequence[Client], seed: int) -> None:
        """`clients`: one for each server; who gets no answer from one asks the next."""
        self._clients = itertools.cycle(clients)
        self._seed = seed
        self._progress = asyncio.Condition()
        self._ending = False
        self.answered = 0
        self.events: dict[str, Event] = {}
        self.accepted: Counter[str] = Counter()
        self.resent = 0

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Send for as long as the context lasts; at its end every batch that was begun has been answered."""
        async with asyncio.TaskGroup() as senders:
            for number in range(2 * STREAMS):
                senders.create_task(self._send(number % STREAMS))
            try:
                yield
            finally:
                self._ending = True

    async def more(self, answers: int, *, and_also: Callable[[], bool] = lambda: True) -> None:
        """Wait until so many more batches have been answered."""
        wanted = self.answered + answers
        async with self._progress:
            await self._progress.wait_for(lambda: self.answered >= wanted and and_also())

    async def _send(self, stream: int) -> None:
        for batch in batches(random.Random(f"{self._seed} {stream}"), stream):
            answer = await self.answer(batch)
            other = {item["index"] for item in answer["items"]}
            assert {(item["outcome"], item["code"]) for item in answer["items"]} <= {("DUPLICATE", None)}
            for index, event in enumerate(batch):
                self.events[event["id"]] = event
                self.accepted[event["id"]] += index not in other
            async with self._progress:
                self.answered += 1
                self._progress.notify_all()
            if self._ending:
                return

    async def answer(self, batch: Sequence[Event]) -> dict[str, Any]:
        """Send a batch until it is answered, as a careful client does; any fault but an absence is a failure."""
        while True:
            try:
                reply = await next(self._clients).execute(COLLECT, {"input": {"source": "crashes", "events": batch}})
            except aiohttp.ClientError:
                reply = None
            if reply is not None:
                if "errors" not in reply.body:
                    answer: dict[str, Any] = reply.body["data"]["collectUsage"]
                    return answer
                assert reply.codes == ["SERVICE_UNAVAILABLE"], reply.body
            self.resent += 1
            await _back_off()


async def _back_off() -> None:
    """Be a client that waits a little before it sends again."""
    await asyncio.sleep(RESEND_SECONDS)


def batches(chance: random.Random, stream: int) -> Iterator[list[Event]]:
    """Give the batches of a stream, without end, and the same for everybody who has the same dice."""
    start = datetime(FIRST_DAY.year, FIRST_DAY.month, FIRST_DAY.day, tzinfo=UTC)
    number = 0
    while True:
        batch = []
        for _ in range(BATCH):
            number += 1
            batch.append(
                {
                    "id": f"{stream}-{number}",
                    "agent": {"name": chance.choice(HOT_AGENTS)},
                    "at": (start + timedelta(seconds=chance.randrange(DAYS * 86_400))).isoformat(),
                    "model": chance.choice(MODELS),
                    "user": f"user-{chance.randrange(40)}",
                    "conversation": f"conversation-{chance.randrange(200)}",
                    "promptTokens": chance.randrange(100),
                    "completionTokens": chance.randrange(100),
                    "cost": f"{Decimal(chance.randrange(10**6)).scaleb(-9):f}",
                }
            )
        yield batch


async def moment(chance: random.Random) -> None:
    """Let the senders get a random way further: anywhere between two answers."""
    for _ in range(chance.randrange(300)):
        await asyncio.sleep(0)


# ---------------------------------------------------------------- what must be


def line(events: Sequence[Event]) -> Figures:
    """Sum up events as a day or a model shows them."""
    return {
        "requests": len(events),
        "promptTokens": sum(event["promptTokens"] for event in events),
        "completionTokens": sum(event["completionTokens"] for event in events),
        "cost": sum((Decimal(event["cost"]) for event in events), Decimal(0)),
    }


def totals(events: Sequence[Event]) -> Figures:
    """Sum up events as totals show them."""
    distinct = {f"{name}s": len({event[name] for event in events}) for name in ("user", "conversation")}
    return {**distinct, **line(events)}


def read(shown: Figures) -> Figures:
    """Read figures as they came."""
    return {name: Decimal(value) if name == "cost" else value for name, value in shown.items()}


async def check(scene: "Scene") -> None:
    """Check that every event that was answered is counted once, everywhere."""
    load, client = scene.load, scene.client
    events = list(load.events.values())

    # Nobody was told of one event twice that it is new.
    assert max(load.accepted.values()) == 1

    for name in HOT_AGENTS:
        own = [event for event in events if event["agent"]["name"] == name]
        last_day = FIRST_DAY + timedelta(days=DAYS - 1)
        variables = {"by": {"name": name}, "from": str(FIRST_DAY), "to": str(last_day)}
        shown = await client.query(USAGE, **variables)
        assert read(shown["agent"]["usage"]) == totals(own)
        assert read(shown["usage"]["totals"]) == totals(own)
        for n, day in enumerate(shown["agent"]["usageTimeline"]):
            today = str(FIRST_DAY + timedelta(days=n))
            assert read(day) == {"day": today, **line([event for event in own if event["at"].startswith(today)])}
        by_model = {each["model"]: read(each["totals"]) for each in shown["usage"]["byModel"]}
        assert by_model == {model: line([event for event in own if event["model"] == model]) for model in MODELS}
        assert sum(line(own)[figure] for figure in ("promptTokens", "completionTokens")) > THRESHOLD

    # Each agent is past the threshold, and of each there is one alert: the cooldown is a day.
    alerts = (await client.query(ALERTS))["alerts"]["nodes"]
    assert sorted(alert["agent"]["name"] for alert in alerts) == sorted(HOT_AGENTS)

    # Sent once more, nothing is new.
    for start in range(0, len(events), 1000):
        batch = events[start : start + 1000]
        answer = await load.answer(batch)
        assert (answer["accepted"], answer["duplicates"], answer["rejected"]) == (0, len(batch), 0)
        assert {item["code"] for item in answer["items"]} == {None}

    assert await rebuild(scene) == f"{len(events):,} events, 0 figures differed."


async def rebuild(scene: "Scene") -> str:
    """Have every figure counted again by the command line, and give all that it says."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "server", "rebuild", "usage", "--check", "--mongodb-uri", scene.mongod.uri),
        cwd=ROOT,
        env={**os.environ, **scene.servers[0].settings, "LOG_LEVEL": "warning"},
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    said, complaints = await process.communicate()
    return (said + complaints).decode().strip()


# ---------------------------------------------------------------- the tests


@dataclass(frozen=True, slots=True)
class Scene:
    """Two servers on one database, with senders that call both."""

    mongod: Mongod
    servers: Sequence[Server]
    client: Client
    load: Load
    chance: random.Random


Crash = Callable[[Scene], Awaitable[None]]


async def survive(tmp_path: Path, session: aiohttp.ClientSession, crash: Crash) -> None:
    """Run the load, crash what is to crash meanwhile, and check the figures; a failure tells its seed."""
    seed = int(os.environ.get("CRASH_SEED") or secrets.randbelow(2**32))
    notes = [f"CRASH_SEED={seed}"]
    # What is started twenty times is compiled once, also where Python is told to write no bytecode.
    compiled = {"PYTHONDONTWRITEBYTECODE": "", "PYTHONPYCACHEPREFIX": str(tmp_path / "bytecode")}
    settings = {"TOKEN_USAGE_THRESHOLD": str(THRESHOLD), **compiled}
    try:
        async with (
            asyncio.timeout(DEADLINE_SECONDS),
            Mongod(tmp_path / "database") as mongod,
            Server(mongod.uri, **settings) as server,
            Server(mongod.uri, **server.settings) as another,
        ):
            person = await factories.sign_up(Client(session, server.graphql), email="sender@example.com")
            load = Load([person.client, Client(session, another.graphql, person.access_token)], seed)
            scene = Scene(mongod, (server, another), person.client, load, random.Random(seed))
            try:
                async with load.running():
                    await crash(scene)
                    await load.more(2 * STREAMS)
                await check(scene)
            finally:
                notes.append(f"{load.answered} batches answered, {load.resent} times sent again")
                notes += [line for each in (server, another) for line in list(each.lines)[-20:]]
    except BaseException as error:
        error.add_note("\n".join(notes))
        raise


async def test_killed_servers_count_every_acknowledged_event_once(
    tmp_path: Path, session: aiohttp.ClientSession
) -> None:
    async def crash(scene: Scene) -> None:
        async def kill(server: Server, dice: random.Random) -> None:
            for _ in range(KILLS // len(scene.servers)):
                await scene.load.more(dice.randrange(12))
                await moment(dice)
                await server.kill()
                await server.start()

        await asyncio.gather(*(kill(server, random.Random(scene.chance.random())) for server in scene.servers))

    await survive(tmp_path, session, crash)


async def test_a_killed_database_counts_every_acknowledged_event_once(
    tmp_path: Path, session: aiohttp.ClientSession
) -> None:
    async def crash(scene: Scene) -> None:
        killed = 0

        def has_come_back() -> bool:
            return scene.mongod.pid != killed

        for _ in range(MONGOD_KILLS):
            # An answer may still have been on its way from before: the next kill waits for the next mongod.
            await scene.load.more(scene.chance.randrange(1, 40), and_also=has_come_back)
            await moment(scene.chance)
            killed = scene.mongod.pid
            os.kill(killed, signal.SIGKILL)
        await scene.load.more(1, and_also=has_come_back)

    await survive(tmp_path, session, crash)


SIDE_BY_SIDE = """{ agents(first: 20) { nodes { name owner { name } ratings { totalCount } usageTimeline { day } } }
  usage { totals { cost } } other: agents(first: 3) { totalCount nodes { alerts { totalCount } } } }"""


async def test_a_database_that_stands_still_for_seconds_stops_nobody_for_good(
    tmp_path: Path, session: aiohttp.ClientSession, server: Server
) -> None:
    """Reads side by side that are cancelled while they wait must leave nothing locked behind them."""
    async with Mongod(tmp_path) as mongod, Server(mongod.uri, **server.settings) as alone:
        client = Client(session, alone.graphql)
        # The accounts of this run live in another database: these are made by the server itself.
        person = await factories.sign_up(client, email="somebody@example.com")
        ending = False

        async def read(number: int) -> None:
            dice = random.Random(number)
            while not ending:
                # Some leave while their answer is being made, which cancels it.
                with suppress(Exception):
                    async with asyncio.timeout(dice.uniform(0.05, 1.5)):
                        await person.client.execute(SIDE_BY_SIDE)

        async def write(number: int) -> None:
            for turn in itertools.count():
                if ending:
                    return
                event = {"id": f"{number}-{turn}", "agent": {"name": f"Agent {turn % 5}"}, "promptTokens": 1}
                with suppress(Exception):
                    async with asyncio.timeout(2):
                        await person.client.execute(COLLECT, {"input": {"source": "s", "events": [event]}})

        busy = [asyncio.create_task(work(number)) for work in (read, write) for number in range(16)]
        await asyncio.wait(busy, timeout=1.0)
        for _ in range(2):
            os.kill(mongod.pid, signal.SIGSTOP)
            await asyncio.wait(busy, timeout=6.0)
            os.kill(mongod.pid, signal.SIGCONT)
            await asyncio.wait(busy, timeout=3.0)
        ending = True
        await asyncio.wait(busy, timeout=30.0)

        async with asyncio.timeout(20):
            while (await person.client.execute("{ agents { totalCount } }")).codes:
                pass
        status = await asyncio.wait_for(alone.stop(), 15.0)

    assert status == 0


async def test_who_is_cancelled_while_the_driver_waits_leaves_no_lock_behind() -> None:
    """The moment by which a process was stopped for good, staged: cancelled twice while it takes the lock back."""
    condition = asyncio.Condition()
    wait_for: Any = topology._async_cond_wait  # type: ignore[attr-defined]  # noqa: SLF001  # as PyMongo calls it

    async def wait() -> None:
        async with condition:
            await wait_for(condition, 5)

    waiting = asyncio.create_task(wait())
    await asyncio.sleep(0.01)
    await condition.acquire()
    condition.notify_all()
    await asyncio.sleep(0.01)
    waiting.cancel()
    await asyncio.sleep(0.01)
    # Both in one turn of the loop: it leaves before the lock that is given back has been taken.
    waiting.cancel()
    condition.release()
    await asyncio.wait([waiting])
    await asyncio.sleep(0.01)

    assert waiting.cancelled()
    assert not condition.locked()
