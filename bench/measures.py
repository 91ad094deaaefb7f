"""What is measured, round by round: the service, then its floors, so that both see the same machine."""

import asyncio
import itertools
import json
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal
from typing import Final

from bench import queries, seed, sockets
from bench.floors import Floors
from bench.load import Caller, Sample, WrongAnswer
from bench.report import Figure
from models import agents
from models.alerts import rules
from models.alerts.rules import AlertMetric, AlertWindow
from models.store import database
from server.application import DOCUMENTS
from tests.processes import Server

SUBSCRIBERS: Final = 500
READERS: Final = 4

_MOST: Final = 20_000
_NEVER: Final = str(2**53 - 1)


Run = Callable[[], Awaitable[Sample]]


@dataclass(frozen=True, slots=True)
class Plan:
    """How long to measure: `seconds` for each run of each side, in `rounds` rounds; `fleets`: events of two fleets."""

    seconds: float
    rounds: int
    fleets: tuple[int, int]


@dataclass(frozen=True, slots=True)
class Bench:
    """A service and its floors on one database."""

    server: Server
    floors: Floors
    caller: Caller
    secret: str
    plan: Plan

    async def reader(self, name: str, document: str, *more: str) -> list[Run]:
        """Prepare to measure a query: the service, a bare app that answers the same bytes, the driver alone.

        `more`: further kinds of work for the driver. Raises `WrongAnswer` when the service leaves something out.
        """
        body = queries.body(document)
        first = await self.caller.post(self.server.graphql, body)
        if not queries.is_complete(name, first):
            raise WrongAnswer(repr(first[:500]))
        await self.put(name, first)
        here = await self._service(lambda: itertools.repeat(body), READERS, lambda answer: len(answer) == len(first))
        bare = await self._constant(name, body, callers=READERS, answer=first)
        driver = [await self.driver(kind, READERS) for kind in (name, *more)]
        return [here, bare, *driver]

    async def served(self, body: bytes, is_right: Callable[[bytes], bool]) -> Run:
        """Prepare to measure a request of the service alone."""
        return await self._service(lambda: itertools.repeat(body), READERS, is_right)

    async def put(self, name: str, answer: bytes) -> None:
        """Tell the bare app what to answer."""
        await self.caller.post(f"{self.floors.url}/keep/{name}", answer)

    async def _service(
        self, bodies: Callable[[], Iterator[bytes]], callers: int, is_right: Callable[[bytes], bool]
    ) -> Run:
        return await self._http(self.server.graphql, self.server.pid, bodies, callers=callers, is_right=is_right)

    async def _constant(self, name: str, body: bytes, *, callers: int, answer: bytes) -> Run:
        url = f"{self.floors.url}/constant/{name}"
        return await self._http(
            url, self.floors.pid, lambda: itertools.repeat(body), callers=callers, is_right=lambda said: said == answer
        )

    async def _http(
        self,
        url: str,
        pid: int,
        bodies: Callable[[], Iterator[bytes]],
        *,
        callers: int,
        is_right: Callable[[bytes], bool],
    ) -> Run:
        source = bodies()

        async def run(times: int) -> Sample:
            # Written before the clock starts.
            written = list(itertools.islice(source, times))
            return await self.caller.sample(url, written, pid=pid, callers=callers, is_right=is_right)

        return await _calibrated(run, callers, self.plan.seconds)

    async def driver(self, name: str, callers: int) -> Run:
        """Have the driver do the same alone."""

        async def run(times: int) -> Sample:
            wish = json.dumps({"times": times, "callers": callers}).encode()
            return Sample(**json.loads(await self.caller.post(f"{self.floors.url}/driver/{name}", wish)))

        return await _calibrated(run, callers, self.plan.seconds)

    async def collect(self, callers: int) -> list[list[Sample]]:
        """Measure collection: the service, a bare app, the driver with the same transaction, bare inserts."""
        source = queries.batches(f"bench-{callers}")
        sample = next(source)
        answer = await self.caller.post(self.server.graphql, sample)
        await self.put("collect", answer)
        here = await self._service(lambda: source, callers, queries.all_accepted)
        driver, insert = await self.driver("collect", callers), await self.driver("insert", callers)
        bare = await self._constant("collect", sample, callers=callers, answer=answer)
        return await rounds(self.plan.rounds, here, bare, driver, insert)


@asynccontextmanager
async def bench(uri: str, name: str, secret: str, *, plan: Plan) -> AsyncIterator[Bench]:
    """Start a service and its floors on one database."""
    async with AsyncExitStack() as stack:
        # The rule that exists from the start is read at each commit, as in life, and never speaks.
        server = Server(
            uri, MONGODB_DBNAME=name, TOKEN_USAGE_THRESHOLD=_NEVER, INTROSPECTION="false", REQUESTS_PER_MINUTE="0"
        )
        await stack.enter_async_context(server)
        floors = await stack.enter_async_context(Floors(uri, name))
        yield Bench(server, floors, await stack.enter_async_context(Caller(secret)), secret, plan)


async def _calibrated(run: Callable[[int], Awaitable[Sample]], callers: int, seconds: float) -> Run:
    """Warm up, and settle how many make up a run of about so many seconds."""
    await run(callers)
    rate = (await run(callers)).per_second
    # Whole rounds of all callers, so that none is left alone at the end.
    times = max(1, min(_MOST, int(rate * seconds)) // callers) * callers
    return lambda: run(times)


async def rounds(count: int, *runs: Run) -> list[list[Sample]]:
    """Run all in turn, so many times; gives the samples of each."""
    found: list[list[Sample]] = [[] for _ in runs]
    for _ in range(count):
        for samples, run in zip(found, runs, strict=True):
            samples.append(await run())
    return found


def _cpu(samples: Sequence[Sample]) -> list[float]:
    return [sample.cpu_ms for sample in samples]


def _speed(samples: Sequence[Sample]) -> list[float]:
    return [sample.per_second for sample in samples]


async def _read(bench: Bench, name: str, document: str, *, title: str) -> list[Figure]:
    more = ("nested_packed",) if name == "nested" else ()
    here, bare, driver, *rest = await rounds(bench.plan.rounds, *await bench.reader(name, document, *more))
    figures = [
        Figure(title, "CPU ms / request", _cpu(here), _cpu(driver), _cpu(bare)),
        Figure(title, "requests / s", _speed(here), _speed(driver), _speed(bare)),
    ]
    return figures + [Figure(f"{title}, fewest reads", "CPU ms / request", _cpu(here), _cpu(packed)) for packed in rest]


async def measure_list(bench: Bench) -> list[Figure]:
    """Measure a page of 50 agents, 12 scalars and tags."""
    return await _read(bench, "list", queries.LIST, title="list of 50")


async def measure_nested(bench: Bench) -> list[Figure]:
    """Measure that page with 30 days and 5 ratings of each agent."""
    return await _read(bench, "nested", queries.NESTED, title="nested list")


async def measure_single(bench: Bench) -> list[Figure]:
    """Measure one agent with 90 days."""
    return await _read(bench, "single", queries.SINGLE, title="one agent, 90 days")


async def measure_collect(bench: Bench) -> list[Figure]:
    """Measure batches of 100 fresh events, from one caller and from eight."""
    figures: list[Figure] = []
    for callers in (1, 8):
        here, bare, driver, insert = await bench.collect(callers)
        title = f"100 events, {callers} caller{'s' if callers > 1 else ''}"
        figures += [
            Figure(title, "CPU ms / batch", _cpu(here), _cpu(driver), _cpu(bare)),
            Figure(title, "batches / s", _speed(here), _speed(driver), _speed(bare)),
            Figure(f"{title}, bare insert_many", "batches / s", _speed(here), _speed(insert)),
        ]
    return figures


async def measure_fanout(bench: Bench) -> list[Figure]:
    """Measure one alert to 500 subscribers: from the report of the event to the first and the last of them."""
    await rules.create(
        {
            "name": "Fan-out",
            "metric": AlertMetric.TOTAL_TOKENS,
            "window": AlertWindow.LIFETIME,
            "threshold": Decimal(1000),
            "project": "fan-out",
        },
        now=datetime.now(UTC),
    )
    greeting = (
        (json.dumps({"type": "connection_init", "payload": {"authorization": f"Bearer {bench.secret}"}}), True),
        (json.dumps({"id": "1", "type": "subscribe", "payload": {"query": queries.ALERTS}}), False),
        # The answer to a ping says that what came before it has been read.
        (json.dumps({"type": "ping"}), True),
    )
    served = await sockets.connect(bench.server.graphql, SUBSCRIBERS, greeting)
    bare = await sockets.connect(f"{bench.floors.url}/socket", SUBSCRIBERS, ())
    here: list[tuple[float, float]] = []
    floor: list[tuple[float, float]] = []
    try:
        # Subscriptions that have just been asked for may still be starting.
        await asyncio.sleep(0.5)
        for number in range(bench.plan.rounds + 1):
            agent = f"fan-out {number}"
            values = {"name": agent, "project": "fan-out"}
            await agents.create(values, owner=None, by_person=False, now=datetime.now(UTC))
            reached, frame = await _reach(bench, served, url=bench.server.graphql, body=queries.one_event(agent, 2000))
            if b"thresholdAlerts" not in frame:
                raise WrongAnswer(repr(frame[:500]))
            here.append(reached)
            floor.append((await _reach(bench, bare, url=f"{bench.floors.url}/fire/all", body=frame))[0])
    finally:
        for subscriber in (*served, *bare):
            subscriber.close()
    # The first round of each warmed it up.
    del here[0], floor[0]
    title = f"{SUBSCRIBERS} subscribers"
    return [
        Figure(f"{title}, first", "ms", [first for first, _ in here], bare=[first for first, _ in floor]),
        Figure(f"{title}, last", "ms", [last for _, last in here], bare=[last for _, last in floor]),
        Figure(
            f"{title}, first to last",
            "ms",
            [last - first for first, last in here],
            bare=[last - first for first, last in floor],
        ),
    ]


async def _reach(
    bench: Bench, subscribers: Sequence[sockets.Subscriber], *, url: str, body: bytes
) -> tuple[tuple[float, float], bytes]:
    waiting = [subscriber.next() for subscriber in subscribers]
    started = time.perf_counter()
    _, arrived = await asyncio.gather(bench.caller.post(url, body), sockets.arrivals(waiting))
    times = [(at - started) * 1000 for at, _ in arrived]
    if len({frame for _, frame in arrived}) != 1:
        raise WrongAnswer("Subscribers were told different things.")
    return (min(times), max(times)), arrived[0][1]


async def company(uri: str, plan: Plan, chosen: Sequence[str], *, say: Callable[[str], None]) -> list[Figure]:
    """Measure what is chosen on one company of 500 agents."""
    name = "bench_company"
    figures: list[Figure] = []
    async with database.connect(uri, name, DOCUMENTS):
        say("Seeding 500 agents, 90 days, 2,000 ratings")
        secret = await seed.company(datetime.now(UTC))
        async with bench(uri, name, secret, plan=plan) as running:
            for each in chosen:
                say(f"Measuring {each}")
                figures += await MEASURES[each](running)
    return figures


async def fleet(uri: str, plan: Plan, *, say: Callable[[str], None]) -> list[Figure]:
    """Measure 30 days of a whole fleet with few and with many events, side by side."""
    async with AsyncExitStack() as stack:
        found: list[Bench] = []
        for count in plan.fleets:
            name = f"bench_{count}"
            say(f"Seeding {count:,} events")
            async with database.connect(uri, name, DOCUMENTS) as store:
                secret = await seed.bulk(store, count, datetime.now(UTC))
            found.append(await stack.enter_async_context(bench(uri, name, secret, plan=plan)))
        say("Measuring fleet")
        samples = await _side_by_side(found)
    figures: list[Figure] = []
    for count, (here, bare, driver) in zip(plan.fleets, samples, strict=True):
        title = f"fleet, 30 days, {count:,} events"
        figures.append(Figure(title, "CPU ms / request", _cpu(here), _cpu(driver), _cpu(bare)))
    growth = [
        [many / few for few, many in zip(_cpu(one), _cpu(other), strict=True)]
        for one, other in ((samples[0][side], samples[1][side]) for side in (0, 2))
    ]
    few, many = plan.fleets
    figures.append(Figure(f"fleet, {many:,} against {few:,}", "times the CPU", growth[0], growth[1]))
    return figures


async def _side_by_side(found: Sequence[Bench]) -> list[list[list[Sample]]]:
    """Give for each fleet samples of the service, the bare app and the driver, the fleets taking turns."""
    runs = [await each.reader("fleet", queries.FLEET) for each in found]
    flat = await rounds(found[0].plan.rounds, *itertools.chain.from_iterable(runs))
    size = len(runs[0])
    return [flat[start : start + size] for start in range(0, len(flat), size)]


MEASURES: Final[Mapping[str, Callable[[Bench], Awaitable[list[Figure]]]]] = {
    "list": measure_list,
    "nested": measure_nested,
    "single": measure_single,
    "collect": measure_collect,
    "fanout": measure_fanout,
}
