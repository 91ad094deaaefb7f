"""The commands that count again what is kept: of runs, usage, budgets and cost."""

from collections.abc import Mapping
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Annotated, Final

import typer
from rich.markup import escape
from rich.status import Status
from rich.table import Column, Table

from models import agents
from models.alerts import rules
from models.runs import rebuild as runs_again
from models.store.database import Key, Row
from models.usage import events, rebuild, repricing, spent
from models.usage.rebuild import Report
from server import application
from server.terminal import DataDir, Uri, out, run, settings_of

# No event is older, in any zone, and nobody's calendar begins later.
_BEFORE_ALL: Final = events.EARLIEST.date() - timedelta(days=1)
_COLUMNS: Final = ("agent", "model", "events", "cost before", "cost after", "unknown before", "unknown after")

rebuilding = typer.Typer(help="Compute stored figures again from what they were computed from.", no_args_is_help=True)


@rebuilding.command("runs")
def rebuild_runs(
    *,
    check: Annotated[bool, typer.Option("--check", help="Only say what differs; status 1 when anything does.")] = False,
    mongodb_uri: Uri = None,
    data_dir: DataDir = None,
) -> None:
    """Count every run again, say which figures differ, and repair them. Recording may go on meanwhile."""
    settings = settings_of(mongodb_uri=mongodb_uri, data_dir=data_dir)

    async def count() -> runs_again.Report:
        async with application.opened(settings):
            with Status("Reading runs", console=out) as status:
                return await runs_again.rebuild(
                    settings.zone, repair=not check, progress=lambda read: status.update(f"{read:,} runs read")
                )

    report = run(count())
    _say(report, f"{report.runs:,} runs", check=check)


@rebuilding.command("usage")
def rebuild_usage(
    *,
    check: Annotated[bool, typer.Option("--check", help="Only say what differs; status 1 when anything does.")] = False,
    mongodb_uri: Uri = None,
    data_dir: DataDir = None,
) -> None:
    """Count every usage event again, say which figures differ, and repair them. Collecting may go on meanwhile."""
    settings = settings_of(mongodb_uri=mongodb_uri, data_dir=data_dir)

    async def count() -> Report:
        async with application.opened(settings):
            with Status("Reading events", console=out) as status:
                return await rebuild.rebuild(
                    settings.zone, repair=not check, progress=lambda read: status.update(f"{read:,} events read")
                )

    report = run(count())
    _say(report, f"{report.events:,} events", check=check)


@rebuilding.command("budgets")
def rebuild_budgets(
    *,
    check: Annotated[bool, typer.Option("--check", help="Only say what differs; status 1 when anything does.")] = False,
    mongodb_uri: Uri = None,
    data_dir: DataDir = None,
) -> None:
    """Count again what budgets have spent, say what differs, and repair it. Work may go on meanwhile."""
    settings = settings_of(mongodb_uri=mongodb_uri, data_dir=data_dir)

    async def count() -> Report:
        async with application.opened(settings):
            with Status("Reading events", console=out) as status:
                return await spent.rebuild(
                    application.thread_budgets(),
                    repair=not check,
                    progress=lambda read: status.update(f"{read:,} events read"),
                )

    report = run(count())
    _say(report, f"{report.events:,} events", check=check)


@rebuilding.command("cost")
def rebuild_cost(
    *,
    since: Annotated[
        datetime, typer.Option("--from", formats=["%Y-%m-%d"], help="The first day, in the company's time zone.")
    ],
    apply: Annotated[bool, typer.Option("--apply", help="Store the new costs; without it they are only told.")] = False,
    mongodb_uri: Uri = None,
    data_dir: DataDir = None,
) -> None:
    """Price events again by the price table as it stands now: those that it has priced, and those without a cost.

    Reported costs stay, and no alert is raised. Collecting may go on; what was interrupted is done by the next run.
    """
    settings = settings_of(mongodb_uri=mongodb_uri, data_dir=data_dir)

    async def price() -> tuple[repricing.Report, Mapping[Key, Row]]:
        async with application.opened(settings):
            with Status("Reading events", console=out) as status:
                report = await repricing.reprice(
                    settings.zone,
                    since=rules.start_of(max(since.date(), _BEFORE_ALL), settings.zone),
                    apply=apply,
                    progress=lambda read: status.update(f"{read:,} events read"),
                )
            return report, await agents.by_keys(list({agent for agent, _ in report.shares}))

    report, found = run(price())
    table = Table(*(Column(name, overflow="fold") for name in _COLUMNS))
    shares = sorted(report.shares.items(), key=lambda each: -abs(each[1].after - each[1].before))
    named = [((found[agent]["name"] if agent in found else str(agent), model), each) for (agent, model), each in shares]
    for (agent, model), each in [*named, (("all", ""), report.whole)] if named else []:
        amounts = (f"{Decimal(nanodollars).scaleb(-9):,f}" for nanodollars in (each.before, each.after))
        counts = (f"{count:,}" for count in (each.unpriced_before, each.unpriced_after))
        table.add_row(escape(agent), escape(model), f"{each.events:,}", *amounts, *counts)
    if named:
        out.print(table)
    done = "priced again" if apply else "to be priced again; --apply does it"
    out.print(f"{report.read:,} events read, {report.whole.events:,} {done}.")


def _say(report: Report | runs_again.Report, read: str, *, check: bool) -> None:
    for each in report.differences:
        out.print(f"{each.where}: {each.figure} was {each.kept}, is {each.right}", markup=False)
    repaired = ", repaired" if report.repaired else ""
    out.print(f"{read}, {len(report.differences):,} figures differed{repaired}.")
    if check and report.differences:
        raise typer.Exit(1)
