"""What budgets have spent, again from usage events and reservations: what differs from what is kept is repaired."""

from collections.abc import Callable, Mapping
from typing import Final

from models.budgets.accounts import NOTHING, counted
from models.budgets.changing import Budgets
from models.budgets.kept import Budget, Reservation
from models.store import database
from models.store.database import Key, Row
from models.usage.events import UsageEvent
from models.usage.rebuild import Difference, Report

Sums = dict[str, int]

_FIGURES: Final = tuple(NOTHING)
_BATCH: Final = 2000


async def rebuild(budgets: Budgets, *, repair: bool, progress: Callable[[int], None] = lambda _: None) -> Report:
    """Count what was spent again, as of one moment, and compare; with `repair`, bring what is kept into line.

    A repair adds the difference, so that what is spent meanwhile stays counted, and what follows from it follows: a
    thread is exhausted or goes on, agents and people are told.
    """
    report = Report()
    right: dict[str, Sums] = {}
    reported: dict[Key, Sums] = {}
    spent_wrong: dict[str, Sums] = {}
    reported_wrong: dict[Key, Sums] = {}
    async with database.snapshot(UsageEvent) as session:
        shown = dict.fromkeys(("budget", "reservation", *_FIGURES), 1)
        charged = database.collection(UsageEvent).find({"budget": {"$exists": True}}, shown, session=session)
        async for row in charged.batch_size(_BATCH):
            reservation = row.get("reservation")
            _add(reported.setdefault(reservation, {}) if reservation else right.setdefault(row["budget"], {}), row)
            report.events += 1
            if report.events % _BATCH == 0:
                progress(report.events)
        async for row in database.collection(Reservation).find({}, session=session).batch_size(_BATCH):
            said = {**NOTHING, **reported.get(row["_id"], {})}
            prompt, completion = counted({**row, "reported": said})
            _add(right.setdefault(row["budget"], {}), {"prompt_tokens": prompt, "completion_tokens": completion})
            if missing := _missing(row["reported"] or NOTHING, said):
                reported_wrong[row["_id"]] = missing
                report.differences += _described(f"reservation {row['_id']}", row["reported"] or NOTHING, said)
        async for row in database.collection(Budget).find({}, session=session).batch_size(_BATCH):
            said = right.get(row["_id"], {})
            if missing := _missing(row, said):
                spent_wrong[row["_id"]] = missing
                report.differences += _described(f"budget {row['_id']}", row, said)
    progress(report.events)
    if repair and report.differences:
        await database.transaction(Budget, lambda session: budgets.amend(spent_wrong, reported_wrong, session=session))
        budgets.committed()
        report.repaired = True
    return report


def _add(sums: Sums, row: Row) -> None:
    for name in _FIGURES:
        sums[name] = sums.get(name, 0) + row[name]


def _missing(kept: Row, right: Mapping[str, int]) -> Sums:
    missing = {name: right.get(name, 0) - kept[name] for name in _FIGURES}
    return missing if any(missing.values()) else {}


def _described(where: str, kept: Row, right: Mapping[str, int]) -> list[Difference]:
    return [
        Difference(where, name, kept=kept[name], right=right.get(name, 0))
        for name in _FIGURES
        if kept[name] != right.get(name, 0)
    ]
