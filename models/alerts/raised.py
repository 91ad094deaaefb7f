"""Alerts: raised inside the transaction that crosses a threshold, numbered in the order of commit."""

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import KW_ONLY, dataclass
from datetime import datetime, timedelta
from typing import Any, ClassVar, Final

from models import users
from models.agents import Agent
from models.alerts.rules import AlertChannel, AlertMetric, AlertWindow
from models.errors import NotFound
from models.store import database, outbox, pages, sequences
from models.store.database import ASCENDING, IndexModel, Key, Row, Session, Stored, UpdateOne
from models.store.outbox import Message
from models.store.pages import Order, Page, Window


class Alert(Stored):
    """One alert. Its number is taken in the transaction that raises it: the order of numbers is the order of commit."""

    id: int  # type: ignore[assignment]  # the number
    rule: Key | None
    agent: Key
    thread: Key | None = None
    discipline: str | None
    metric: str
    window: str
    threshold: int
    percent: int
    value: int
    window_start: datetime | None
    raised_at: datetime
    acknowledged_at: datetime | None = None
    acknowledged_by: Key | None = None

    class Settings:
        """Where it is stored."""

        name = "alerts"
        indexes: ClassVar[list[IndexModel]] = [
            IndexModel([("agent", ASCENDING), ("_id", ASCENDING)], name="agent"),
            # null sorts first: what nobody has acknowledged is one range of this index.
            IndexModel([("acknowledged_at", ASCENDING), ("_id", ASCENDING)], name="acknowledged"),
        ]


class AlertState(Stored):
    """What a rule has said of an agent in one window: each percent and when, so that a cooldown can be kept."""

    id: str  # type: ignore[assignment]  # rule, revision, agent and window
    spoken: dict[str, datetime]
    expires_at: datetime | None = None

    class Settings:
        """Where it is stored; the state of a calendar window goes long after the window has."""

        name = "alert_states"
        indexes: ClassVar[list[IndexModel]] = [
            IndexModel([("expires_at", ASCENDING)], name="expiry", expireAfterSeconds=0)
        ]


NEWEST: Final = Order("_id", descending=True)
_KEPT: Final = timedelta(days=400)
_WHOLE: Final = 100

# ---------------------------------------------------------------- reads


async def find(number: int) -> Row | None:
    """Find one alert."""
    return await database.collection(Alert).find_one({"_id": number})


def _where(*, agent: Key | None, acknowledged: bool | None) -> dict[str, Any]:
    wanted: dict[str, Any] = {}
    if agent is not None:
        wanted["agent"] = agent
    if acknowledged is not None:
        wanted["acknowledged_at"] = {"$ne": None} if acknowledged else None
    return wanted


async def page(*, agent: Key | None = None, acknowledged: bool | None = None, window: Window) -> Page:
    """Read one page of alerts, newest first."""
    return await pages.read(
        database.collection(Alert), _where(agent=agent, acknowledged=acknowledged), order=NEWEST, window=window
    )


async def newest(agents: Sequence[Key], *, window: Window) -> Mapping[Key, Page]:
    """Read one page of each agent's alerts, newest first."""
    return await pages.read_each(database.collection(Alert), agents, field="agent", order=NEWEST, window=window)


async def counts(agents: Sequence[Key]) -> Mapping[Key, int]:
    """Count each agent's alerts; agents without any are left out."""
    pipeline: Sequence[Row] = [
        {"$match": {"agent": {"$in": list(agents)}}},
        {"$group": {"_id": "$agent", "count": {"$sum": 1}}},
    ]
    return {row["_id"]: row["count"] for row in await database.aggregate(Alert, pipeline)}


async def count(*, agent: Key | None = None, acknowledged: bool | None = None) -> int:
    """Count alerts."""
    return await database.collection(Alert).count_documents(_where(agent=agent, acknowledged=acknowledged))


# ---------------------------------------------------------------- writes


async def acknowledge(number: int, *, by: Key, now: datetime) -> Row:
    """Note who has seen to an alert; the first one stays."""
    rows = database.collection(Alert)
    await rows.update_one(
        {"_id": number, "acknowledged_at": None}, {"$set": {"acknowledged_at": now, "acknowledged_by": by}}
    )
    row = await rows.find_one({"_id": number})
    if row is None:
        raise NotFound("There is no such alert.", field="id")
    return row


async def remember(rule: Row, told: Mapping[Key, datetime]) -> int:
    """Note that a lifetime rule has spoken of some agents elsewhere; gives of how many that was not known."""
    percents = [percent for percent in rule["percents"] if percent <= _WHOLE]
    if not percents or not told:
        return 0
    writes = [
        UpdateOne(
            {"_id": _state(rule, agent, None)}, {"$max": {f"spoken.{each}": at for each in percents}}, upsert=True
        )
        for agent, at in told.items()
    ]
    done = await database.collection(AlertState).bulk_write(writes, ordered=False)
    return done.modified_count + done.upserted_count


# ---------------------------------------------------------------- rules


@dataclass(frozen=True, slots=True)
class Reading:
    """What one rule measures of one agent, read inside the transaction that has changed it."""

    rule: Row
    agent: Row
    value: int
    window_start: datetime | None

    @property
    def state(self) -> str:
        """The key of what has been said already."""
        return _state(self.rule, self.agent["_id"], self.window_start)

    def reached(self) -> list[int]:
        """Give the percents that the value has come to: 100 once it is past the threshold, others once it is there."""
        value, threshold = self.value * _WHOLE, self.rule["threshold"]
        return [
            percent
            for percent in self.rule["percents"]
            if value > threshold * percent or (value == threshold * percent and percent != _WHOLE)
        ]


def chooser(*, agents: Collection[Key] | None, disciplines: Collection[str] | None) -> Callable[[Row], bool]:
    """Make the test that picks the alerts about some agents, and about agents that were of some disciplines."""

    def chosen(row: Row) -> bool:
        return (agents is None or row["agent"] in agents) and (disciplines is None or row["discipline"] in disciplines)

    return chosen


async def raise_for(readings: Sequence[Reading], *, now: datetime, session: Session) -> int:
    """Raise what the readings call for and give the number of alerts; `now` is the database's clock.

    Each percent speaks once in a window, however the change is cut into transactions; after a cooldown the highest one
    reached speaks again. That no alert is raised twice rests on the agent's document, which whoever raises one has
    changed in this transaction: a second transaction meets a write conflict there and starts again.
    """
    past = [(reading, reached) for reading in readings if (reached := reading.reached())]
    if not past:
        return 0
    keys = [reading.state for reading, _ in past]
    cursor = database.collection(AlertState).find({"_id": {"$in": keys}}, session=session)
    spoken: dict[str, Mapping[str, datetime]] = {row["_id"]: row["spoken"] async for row in cursor}
    due = [
        (reading, percent)
        for reading, reached in past
        for percent in reached
        if _speaks(reading, percent, last=spoken.get(reading.state, {}).get(str(percent)), highest=reached[-1], now=now)
    ]
    if not due:
        return 0
    numbers = await sequences.take("alerts", len(due), session=session)
    rows = [_row(number, reading, percent, now=now) for number, (reading, percent) in zip(numbers, due, strict=True)]
    said: dict[str, dict[str, Any]] = {}
    for reading, percent in due:
        fields = said.setdefault(reading.state, {})
        fields[f"spoken.{percent}"] = now
        if reading.window_start is not None:
            fields["expires_at"] = max(reading.window_start, now) + _KEPT
    states = [UpdateOne({"_id": key}, {"$set": fields}, upsert=True) for key, fields in sorted(said.items())]
    await database.collection(AlertState).bulk_write(states, ordered=False, session=session)
    await database.collection(Alert).insert_many(rows, session=session)
    pairs = [
        (row["_id"], channel)
        for row, (reading, _) in zip(rows, due, strict=True)
        for channel in reading.rule["channels"]
    ]
    await outbox.put(await _messages(pairs, session=session), now=now, session=session)
    return len(rows)


@dataclass(frozen=True, slots=True)
class Reached:
    """A percent of a thread's limit of tokens that has been spent, of which no rule has to speak."""

    agent: Key
    thread: Key
    percent: int
    _: KW_ONLY
    value: int
    threshold: int
    at: datetime


async def raise_plain(reached: Sequence[Reached], *, session: Session) -> int:
    """Raise an alert for each, in a transaction in which each comes once; gives their number.

    They belong to no rule, so they have no channel: people see them live and in the list.
    """
    rows = database.collection(Agent).find(
        {"_id": {"$in": [each.agent for each in reached]}, "deleted_at": None}, {"discipline": 1}, session=session
    )
    disciplines = {row["_id"]: row["discipline"] async for row in rows} if reached else {}
    due = [each for each in reached if each.agent in disciplines]
    if not due:
        return 0
    numbers = await sequences.take("alerts", len(due), session=session)
    alerts = [
        {
            "_id": number,
            "rule": None,
            "agent": each.agent,
            "thread": each.thread,
            "discipline": disciplines[each.agent],
            "metric": AlertMetric.TOTAL_TOKENS.value,
            "window": AlertWindow.LIFETIME.value,
            "threshold": each.threshold,
            "percent": each.percent,
            "value": each.value,
            "window_start": None,
            "raised_at": each.at,
            "acknowledged_at": None,
            "acknowledged_by": None,
        }
        for number, each in zip(numbers, due, strict=True)
    ]
    await database.collection(Alert).insert_many(alerts, session=session)
    return len(alerts)


def subject(number: int) -> str:
    """Name an alert as what messages are about."""
    return f"alert:{number}"


async def _messages(pairs: Sequence[tuple[int, str]], *, session: Session) -> Sequence[Message]:
    """Write what leaves by each channel: an e-mail for every active admin, one webhook."""
    by_mail = any(channel == AlertChannel.EMAIL for _, channel in pairs)
    admins = await users.acting_admins(session=session) if by_mail else []
    found = []
    for number, channel in pairs:
        about = subject(number)
        if channel == AlertChannel.EMAIL:
            found += [
                Message(f"{about}:email:{admin}", about, channel, {"alert": number, "user": admin}) for admin in admins
            ]
        else:
            found.append(Message(f"{about}:webhook", about, channel, {"alert": number}))
    return found


def _state(rule: Row, agent: Key, window_start: datetime | None) -> str:
    start = window_start.isoformat() if window_start else ""
    return f"{rule['_id']}:{rule['revision']}:{agent}:{start}"


def _speaks(reading: Reading, percent: int, *, last: datetime | None, highest: int, now: datetime) -> bool:
    if last is None:
        return True
    cooldown = reading.rule["cooldown_hours"]
    return percent == highest and cooldown is not None and now - last >= timedelta(hours=cooldown)


def _row(number: int, reading: Reading, percent: int, *, now: datetime) -> dict[str, Any]:
    rule = reading.rule
    return {
        "_id": number,
        "rule": rule["_id"],
        "agent": reading.agent["_id"],
        "discipline": reading.agent["discipline"],
        "metric": rule["metric"],
        "window": rule["window"],
        "threshold": rule["threshold"],
        "percent": percent,
        "value": reading.value,
        "window_start": reading.window_start,
        "raised_at": now,
        "acknowledged_at": None,
        "acknowledged_by": None,
    }
