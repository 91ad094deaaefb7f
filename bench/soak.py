"""`python -m bench.soak`: a steady mixed load for a long time, and what the process holds of memory and descriptors.

Reads of three kinds (a share of them never asked in these words before, as generated clients do), batches of events,
and subscribers who come, are told of alerts and go. It talks to 127.0.0.1 only and stops by itself.
"""

import asyncio
import itertools
import json
import random
import signal
import statistics
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Annotated, Any, Final

import typer
import uvloop
from rich.console import Console

from bench import queries, seed, sockets
from bench.load import Caller, WrongAnswer, cpu_ms
from models.alerts import rules
from models.alerts.rules import AlertMetric, AlertWindow
from models.store import database
from server.application import DOCUMENTS
from server.mongod import Mongod
from tests.processes import Server

_NAME: Final = "bench_soak"
_NEW_WORDS: Final = 0.1
_SUBSCRIBERS: Final = 50
_SUBSCRIBERS_LIVE_S: Final = 20.0

console = Console(stderr=True, highlight=False)


@dataclass(frozen=True, slots=True)
class Look:
    """What the process held at one moment."""

    minute: float
    resident_kb: int
    descriptors: int
    cpu_ms: float
    answered: int
    p99_ms: float


@dataclass(slots=True)
class Counts:
    """What has been done so far."""

    answered: int = 0
    told: int = 0
    times: list[float] = field(default_factory=list)


def main(
    *,
    minutes: Annotated[float, typer.Option(min=0.2, max=1440, help="How long.")] = 60,
    rate: Annotated[float, typer.Option(min=1, max=1000, help="Requests a second.")] = 25,
    every: Annotated[float, typer.Option(min=1, max=600, help="Seconds between two looks at the process.")] = 30,
) -> None:
    """Run a mixed load for long and watch memory, descriptors and latency of the one process that serves it."""
    # Told to stop, it stops what it has started.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        looks = runner.run(_soak(minutes * 60, rate=rate, every=every))
    console.print(_summary(looks))


async def _soak(seconds: float, *, rate: float, every: float) -> list[Look]:
    with tempfile.TemporaryDirectory(prefix="agenthub-soak-") as directory:
        async with Mongod(Path(directory)) as mongod:
            async with database.connect(mongod.uri, _NAME, DOCUMENTS):
                console.print("Seeding 500 agents, 90 days, 2,000 ratings")
                secret = await seed.company(datetime.now(UTC))
                await rules.create(_rule(), now=datetime.now(UTC))
            server = Server(mongod.uri, MONGODB_DBNAME=_NAME, REQUESTS_PER_MINUTE="0", INTROSPECTION="false")
            async with server, Caller(secret) as caller:
                return await _run(server, caller, secret, seconds=seconds, rate=rate, every=every)


def _rule() -> dict[str, Any]:
    """Make a rule that speaks of each agent again and again, so that subscribers are told."""
    return {
        "name": "Soak",
        "metric": AlertMetric.TOTAL_TOKENS,
        "window": AlertWindow.LIFETIME,
        "threshold": Decimal(1),
        "cooldown_hours": 0.001,
    }


async def _run(server: Server, caller: Caller, secret: str, *, seconds: float, rate: float, every: float) -> list[Look]:
    counts = Counts()
    ends = time.monotonic() + seconds
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(_ask(server, caller, counts, ends=ends, rate=rate))
        tasks.create_task(_subscribe(server, secret, counts, ends=ends))
        watching = tasks.create_task(_watch(server.pid, counts, ends=ends, every=every))
    return watching.result()


async def _ask(server: Server, caller: Caller, counts: Counts, *, ends: float, rate: float) -> None:
    """Send requests at an even pace; how long the former took holds none of them up."""
    bodies = _bodies()
    limit = asyncio.Semaphore(64)

    async def one(body: bytes) -> None:
        async with limit:
            started = time.perf_counter()
            answer = await caller.post(server.graphql, body)
            counts.times.append((time.perf_counter() - started) * 1000)
        if b'"errors"' in answer:
            raise WrongAnswer(repr(answer[:500]))
        counts.answered += 1

    async with asyncio.TaskGroup() as tasks:
        async for body in _paced(bodies, rate, ends):
            tasks.create_task(one(body))


async def _paced(bodies: Iterator[bytes], rate: float, ends: float) -> AsyncIterator[bytes]:
    due = time.monotonic()
    while due < ends:
        yield next(bodies)
        due += 1 / rate
        await asyncio.sleep(max(0.0, due - time.monotonic()))


def _bodies() -> Iterator[bytes]:
    dice = random.Random(1)
    collecting = queries.batches("soak")
    kinds: list[Callable[[], bytes]] = [
        lambda: queries.body(queries.LIST),
        lambda: queries.body(queries.SINGLE),
        lambda: queries.body(queries.FLEET),
        lambda: queries.body(queries.NESTED),
        lambda: next(collecting),
    ]
    for number in itertools.count():
        if dice.random() < _NEW_WORDS:
            yield queries.body(
                f"query Soak{number} {{ a{number}: agents(first: 5) {{ nodes {{ id name n{number}: name }} }} }}"
            )
        else:
            yield dice.choices(kinds, weights=(6, 6, 2, 1, 3))[0]()


async def _subscribe(server: Server, secret: str, counts: Counts, *, ends: float) -> None:
    """Let groups of subscribers come, wait for one alert each, stay a while and go."""
    greeting = (
        (json.dumps({"type": "connection_init", "payload": {"authorization": f"Bearer {secret}"}}), True),
        (json.dumps({"id": "1", "type": "subscribe", "payload": {"query": queries.ALERTS}}), False),
    )
    while time.monotonic() < ends - 1:
        group = await sockets.connect(server.graphql, _SUBSCRIBERS, greeting)
        try:
            counts.told += len(await sockets.arrivals([each.next() for each in group]))
            await asyncio.sleep(max(0.0, min(_SUBSCRIBERS_LIVE_S, ends - time.monotonic())))
        finally:
            for each in group:
                each.close()


async def _watch(pid: int, counts: Counts, *, ends: float, every: float) -> list[Look]:
    looks: list[Look] = []
    began = time.monotonic()
    while (now := time.monotonic()) < ends:
        times, counts.times = counts.times, []
        p99 = statistics.quantiles(times, n=100)[98] if len(times) > 1 else 0.0
        look = Look((now - began) / 60, _resident_kb(pid), _descriptors(pid), cpu_ms(pid), counts.answered, p99)
        looks.append(look)
        console.print(
            f"{look.minute:6.1f} min  {look.resident_kb / 1024:7.1f} MB  {look.descriptors:4} descriptors  "
            f"{look.answered:8,} answered  {counts.told:7,} told  p99 {look.p99_ms:6.1f} ms"
        )
        await asyncio.sleep(min(every, max(0.0, ends - now)))
    return looks


def _resident_kb(pid: int) -> int:
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1])
    raise ProcessLookupError(pid)


def _descriptors(pid: int) -> int:
    return sum(1 for _ in Path(f"/proc/{pid}/fd").iterdir())


def _summary(looks: list[Look]) -> str:
    """Compare the median of the second sixth of the time with that of the last: what starts up is not growth."""
    sixth = max(1, len(looks) // 6)
    early = statistics.median(look.resident_kb for look in looks[sixth : 2 * sixth] or looks)
    late = statistics.median(look.resident_kb for look in looks[-sixth:])
    return (
        f"{looks[-1].minute:.0f} minutes, {looks[-1].answered:,} requests: {early / 1024:.1f} MB early, "
        f"{late / 1024:.1f} MB late ({late / early:.3f} times), "
        f"descriptors at most {max(look.descriptors for look in looks)}, "
        f"{looks[-1].cpu_ms / max(1, looks[-1].answered):.1f} CPU ms a request"
    )


if __name__ == "__main__":
    typer.run(main)
