"""The four figures of the dashboard, each against an earlier time of the same length, read from kept figures."""

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, time, timedelta
from typing import Any, Final
from zoneinfo import ZoneInfo

from models.enums import DescribedEnum
from models.runs import figures
from models.runs.figures import SHOWN, RunHour, Sums
from models.runs.versions import ACTIVE_FOR
from models.store import database
from models.store.database import Row

_WEEK: Final = timedelta(days=7)
_HOUR: Final = timedelta(hours=1)
_MINUTE: Final = timedelta(minutes=1)
_MINUTES: Final = 60
_NANO: Final = 10**9
_WHOLE_PERCENTS: Final = 10
_S, _MIN = 1000, 60_000


class Trend(DescribedEnum):
    """Which way a figure has gone."""

    UP = "UP", "Higher than before."
    DOWN = "DOWN", "Lower than before."
    FLAT = "FLAT", "As before, or there is nothing to compare."


@dataclass(frozen=True, slots=True)
class DashboardFigure:
    """One figure of the dashboard; `improved` is None where nothing has changed."""

    title: str
    icon: str
    value: str
    raw: float
    change: str
    trend: Trend
    improved: bool | None


Window = tuple[datetime, datetime]
"""From a minute to another, the second one not included."""


async def read(now: datetime, zone: ZoneInfo) -> Sequence[DashboardFigure]:
    """Read the four figures. Their cost does not depend on the number of runs."""
    minute = now.astimezone(UTC).replace(second=0, microsecond=0)
    today, yesterday = _days(now, zone)
    lately = (minute - 59 * _MINUTE, minute + _MINUTE)
    windows = (
        (today, minute + _MINUTE),
        yesterday,
        lately,
        (lately[0] - _HOUR, lately[0]),
    )
    active, before, sums = await asyncio.gather(
        figures.active_agents(now - ACTIVE_FOR, now, zone),
        figures.active_agents(now - _WEEK - ACTIVE_FOR, now - _WEEK, zone),
        _sums(windows),
    )
    of_today, of_yesterday, of_now, of_before = sums
    runs, cost = of_today["total_runs"], of_today["cost_nanodollars"]
    return [
        _figure(
            "Active Agents",
            "Bot",
            f"{active:,}",
            raw=active,
            change=_change(active, before=before, against="a week earlier"),
        ),
        _figure(
            "Total Runs Today",
            "Activity",
            f"{runs:,}",
            raw=runs,
            change=_change(runs, before=of_yesterday["total_runs"], against="yesterday"),
        ),
        _response_time(_average(of_now), _average(of_before)),
        _figure(
            "Total Cost Today",
            "DollarSign",
            _dollars(cost / _NANO),
            raw=cost / _NANO,
            change=_change(cost, before=of_yesterday["cost_nanodollars"], against="yesterday"),
            lower_is_better=True,
        ),
    ]


async def _sums(windows: Sequence[Window]) -> Sequence[Sums]:
    """Add up what began in each window: hours as a whole where they lie within it, minutes at its ends."""
    ends = {_hour(moment) for window in windows for moment in window if moment != _hour(moment)}
    rows = database.collection(RunHour)
    span = {"$gte": min(start for start, _ in windows), "$lt": max(end for _, end in windows)}
    whole, cut = await asyncio.gather(
        rows.find({"hour": span}, {"hour": 1, **dict.fromkeys(SHOWN, 1)}).to_list(None),
        rows.find({"hour": {"$in": list(ends)}}, {"hour": 1, "minutes": 1}).to_list(None),
    )
    return [_within(window, whole, cut) for window in windows]


def _within(window: Window, whole: Sequence[Row], cut: Sequence[Row]) -> Sums:
    start, end = window
    found: list[Mapping[str, Any]] = [row for row in whole if start <= row["hour"] and row["hour"] + _HOUR <= end]
    for row in cut:
        first, last = ((moment - row["hour"]) // _MINUTE for moment in window)
        # Those that lie within as a whole are there already.
        if first < _MINUTES and last > 0 and (first > 0 or last < _MINUTES):
            found += [sums for minute, sums in row["minutes"].items() if first <= int(minute) < last]
    return {name: sum([row.get(name, 0) for row in found]) for name in SHOWN}


# ---------------------------------------------------------------- rules


def _days(now: datetime, zone: ZoneInfo) -> tuple[datetime, Window]:
    """Give the beginning of the company's day, and its yesterday up to the same time of the clock."""
    local = now.astimezone(zone)
    before = local.date() - timedelta(days=1)
    moments = (
        datetime.combine(local.date(), time(), zone),
        datetime.combine(before, time(), zone),
        datetime.combine(before, local.time().replace(second=0, microsecond=0), zone),
    )
    today, start, end = (moment.astimezone(UTC) for moment in moments)
    return today, (start, end)


def _hour(moment: datetime) -> datetime:
    return moment.replace(minute=0)


def _average(sums: Sums) -> float | None:
    return sums["runtime_ms"] / sums["timed_runs"] if sums["timed_runs"] else None


def _figure(
    title: str, icon: str, value: str, *, raw: float, change: tuple[str, Trend], lower_is_better: bool = False
) -> DashboardFigure:
    said, trend = change
    improved = None if trend is Trend.FLAT else (trend is Trend.DOWN) is lower_is_better
    return DashboardFigure(title, icon, value, float(raw), said, trend, improved)


def _response_time(now: float | None, before: float | None) -> DashboardFigure:
    if now is None:
        change = "No run timed in the last 60 minutes", Trend.FLAT
    elif before is None:
        change = "No run timed in the 60 minutes before", Trend.FLAT
    else:
        change = _change(now, before=before, against="the 60 minutes before")
    value = "–" if now is None else _duration(now)
    return _figure("Avg Response Time", "Clock", value, raw=now or 0.0, change=change, lower_is_better=True)


def _change(now: float, *, before: float, against: str) -> tuple[str, Trend]:
    """Say how much a figure has changed, and which way."""
    if not before:
        return f"None {against}", Trend.UP if now else Trend.FLAT
    percents = (now - before) / before * 100
    size = f"{abs(percents):,.0f}" if abs(percents) >= _WHOLE_PERCENTS else f"{abs(percents):.1f}".removesuffix(".0")
    if size == "0":
        return f"Same as {against}", Trend.FLAT
    sign, trend = ("+", Trend.UP) if percents > 0 else ("-", Trend.DOWN)
    return f"{sign}{size} % against {against}", trend


def _duration(milliseconds: float) -> str:
    if milliseconds < _S - 0.5:
        return f"{milliseconds:.0f} ms"
    if milliseconds < _MIN - _S / 20:
        return f"{milliseconds / _S:.1f} s"
    minutes, seconds = divmod(round(milliseconds / _S), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min {seconds} s"


def _dollars(amount: float) -> str:
    return f"${amount:,.2f}" if amount >= 1 or not amount else f"${amount:.4f}"
