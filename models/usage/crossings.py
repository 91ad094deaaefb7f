"""Which alert rules some usage crosses: the figures that each rule measures, read after they have changed."""

from collections.abc import Sequence
from datetime import UTC, date, datetime, timedelta
from zoneinfo import ZoneInfo

from models.agents import Agent
from models.alerts import raised, rules
from models.alerts.raised import Reading
from models.alerts.rules import AlertWindow
from models.store import database
from models.store.database import Key, Row, Session
from models.usage import days
from models.usage.days import Cell
from models.usage.tallying import Tally


async def raise_for(tally: Tally, *, zone: ZoneInfo, session: Session) -> int:
    """Raise the alerts that a tally calls for, once it has been kept in the same transaction; gives their number."""
    active = await rules.active(session=session)
    if not active:
        return 0
    # $$NOW is the primary's clock: one clock for every process, whatever their hosts' clocks say.
    pipeline: list[Row] = [
        {"$match": {"_id": {"$in": sorted(tally.totals)}}},
        {"$project": {"discipline": 1, "project": 1, "usage": 1, "now": "$$NOW"}},
    ]
    changed = await database.aggregate(Agent, pipeline, session=session)
    pairs = [(rule, agent) for agent in changed for rule in active if rules.applies(rule, agent)]
    readings = [
        Reading(rule, agent, rules.measure(rule["metric"], agent["usage"]), None)
        for rule, agent in pairs
        if rule["window"] == AlertWindow.LIFETIME
    ]
    readings += await _by_day(pairs, tally, zone=zone, session=session)
    readings += await _by_hour(pairs, tally, session=session)
    return await raised.raise_for(readings, now=changed[0]["now"], session=session) if readings else 0


async def _by_day(
    pairs: Sequence[tuple[Row, Row]], tally: Tally, *, zone: ZoneInfo, session: Session
) -> Sequence[Reading]:
    touched: dict[Key, set[date]] = {}
    for cell in tally.used:
        year, month = divmod(cell.period, 100)
        touched.setdefault(cell.agent, set()).add(date(year, month, int(cell.cell)))
    wanted = {
        (agent["_id"], rule["_id"], rules.days_of(rule["window"], day)): (rule, agent)
        for rule, agent in pairs
        if rule["window"] not in {AlertWindow.LIFETIME, AlertWindow.HOUR}
        for day in touched.get(agent["_id"], ())
    }
    if not wanted:
        return []
    first, last = min(span[0] for _, _, span in wanted), max(span[1] for _, _, span in wanted)
    sums = await days.day_sums([agent for agent, _, _ in wanted], first=first, last=last, session=session)
    readings = []
    for (key, _, (start, end)), (rule, agent) in wanted.items():
        value = sum(
            rules.measure(rule["metric"], sums.get((key, start + timedelta(days=n)), {}))
            for n in range((end - start).days + 1)
        )
        readings.append(Reading(rule, agent, value, rules.start_of(start, zone)))
    return readings


async def _by_hour(pairs: Sequence[tuple[Row, Row]], tally: Tally, *, session: Session) -> Sequence[Reading]:
    wanted = [
        (rule, agent, hour)
        for rule, agent in pairs
        if rule["window"] == AlertWindow.HOUR
        for hour in {_hour(cell) for cell in tally.hours if cell.agent == agent["_id"]}
    ]
    if not wanted:
        return []
    sums = await days.hour_sums(
        [agent["_id"] for _, agent, _ in wanted],
        first=min(hour for _, _, hour in wanted),
        last=max(hour for _, _, hour in wanted),
        session=session,
    )
    return [
        Reading(rule, agent, rules.measure(rule["metric"], sums.get((agent["_id"], hour), {})), hour)
        for rule, agent, hour in wanted
    ]


def _hour(cell: Cell) -> datetime:
    period = cell.period
    return datetime(period // 10_000, period // 100 % 100, period % 100, int(cell.cell), tzinfo=UTC)
