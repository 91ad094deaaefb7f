"""`python -m bench`: seeds a database of its own, measures the service beside its floors, prints a table."""

import asyncio
import resource
import tempfile
import time
from datetime import UTC, datetime
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Final

import typer
import uvloop
from rich.console import Console

from bench import measures, plot, runs
from bench.measures import Plan
from bench.report import Report
from server.mongod import Mongod

_FLEETS: Final = (10_000, 1_000_000)
_QUICK_FLEETS: Final = (10_000, 100_000)
_DESCRIPTORS: Final = 4096

console = Console(stderr=True, highlight=False)


class Measure(StrEnum):
    """What can be measured."""

    LIST = "list"
    NESTED = "nested"
    SINGLE = "single"
    COLLECT = "collect"
    FANOUT = "fanout"
    FLEET = "fleet"
    RUNS = "runs"


def main(
    *,
    seconds: Annotated[
        float | None, typer.Option(min=0.1, max=30, help="Length of each run of each side; 0.8, or 0.25 with --quick.")
    ] = None,
    quick: Annotated[bool, typer.Option("--quick", help="Fewer rounds and a smaller fleet: about a minute.")] = False,
    only: Annotated[list[Measure] | None, typer.Option(help="Measure only this; may be given several times.")] = None,
) -> None:
    """Measure AgentHub on this machine, each figure beside its floor in the same run."""
    plan = Plan(seconds or (0.25 if quick else 0.8), 3 if quick else 5, _QUICK_FLEETS if quick else _FLEETS)
    chosen = [each for each in Measure if not only or each in only]
    _allow_sockets()
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        report = runner.run(_measure(plan, chosen))
    report.print()
    written = report.write()
    plot.beside_floors(report.figures, written.with_suffix(".png"))
    console.print(f"Every round is in {written}, a picture beside it")


async def _measure(plan: Plan, chosen: list[Measure]) -> Report:
    started = time.monotonic()

    def say(what: str) -> None:
        console.print(f"{time.monotonic() - started:5.0f} s  {what}")

    report = Report(
        datetime.now(UTC),
        {"seconds": plan.seconds, "rounds": plan.rounds, "fleets": plan.fleets, "measured": [*chosen]},
    )
    with tempfile.TemporaryDirectory(prefix="agenthub-bench-") as directory:
        async with Mongod(Path(directory)) as mongod:
            on_company = [each.value for each in chosen if each not in {Measure.FLEET, Measure.RUNS}]
            if on_company:
                report.figures += await measures.company(mongod.uri, plan, on_company, say=say)
            if Measure.FLEET in chosen:
                report.figures += await measures.fleet(mongod.uri, plan, say=say)
            if Measure.RUNS in chosen:
                report.figures += await runs.measure(mongod.uri, plan, say=say)
            say("Done")
    return report


def _allow_sockets() -> None:
    """Let this process and its children hold the sockets of all subscribers."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft < _DESCRIPTORS:
        resource.setrlimit(resource.RLIMIT_NOFILE, (min(_DESCRIPTORS, hard), hard))


if __name__ == "__main__":
    typer.run(main)
