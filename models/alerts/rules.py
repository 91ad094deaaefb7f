"""Alert rules: what to watch, of which agents, and at which values to speak."""

from collections.abc import Mapping, Sequence
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from typing import Annotated, Any, Final
from zoneinfo import ZoneInfo

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, HttpUrl, TypeAdapter

from models import text
from models.agents import Discipline
from models.enums import DescribedEnum
from models.errors import BadInput, Conflict, NotFound
from models.store import database
from models.store.database import ASCENDING, Key, Row, Session, Stored


class AlertMetric(DescribedEnum):
    """What a rule measures."""

    TOTAL_TOKENS = "TOTAL_TOKENS", "All tokens."
    PROMPT_TOKENS = "PROMPT_TOKENS", "Prompt tokens."
    COMPLETION_TOKENS = "COMPLETION_TOKENS", "Completion tokens."
    MESSAGES = "MESSAGES", "Messages."
    COST = "COST", "Known cost, reported or by the price table, in US dollars."


class AlertWindow(DescribedEnum):
    """Over what time a rule measures. Calendar windows are of the company's time zone."""

    LIFETIME = "LIFETIME", "Since the agent is known."
    HOUR = "HOUR", "One hour by the clock of UTC."
    DAY = "DAY", "One day."
    WEEK = "WEEK", "One week, from Monday."
    MONTH = "MONTH", "One month."


class AlertChannel(DescribedEnum):
    """How people are told, beside the subscription."""

    EMAIL = "EMAIL", "An e-mail to every active admin."
    WEBHOOK = "WEBHOOK", "A signed POST to the rule's `webhookUrl`."


MOST_RULES: Final = 1000
MOST_HOURS: Final = 24 * 366 * 10
DEFAULT_RULE: Final = Key("000000000000000000000001")
_LARGEST: Final = 10**18
_MEASURED: Final = ("metric", "window", "threshold")


def _percents(values: list[int]) -> list[int]:
    if any(not 1 <= value <= 1000 for value in values):  # noqa: PLR2004  # ten times the threshold is far enough
        raise ValueError("Each percent lies between 1 and 1000.")
    return sorted(set(values))


def _url(value: str) -> str:
    TypeAdapter(HttpUrl).validate_python(value)
    return value


class AlertRuleFields(BaseModel):
    """What people write about a rule; `threshold` in tokens, messages or US dollars."""

    name: Annotated[str, text.Line(200)]
    metric: AlertMetric
    window: AlertWindow
    threshold: Annotated[Decimal, Field(gt=0)]
    percents: Annotated[list[int], Field(min_length=1, max_length=10), AfterValidator(_percents)] = [
        100
    ]  # pydantic copies a default
    cooldown_hours: Annotated[float, Field(gt=0, le=MOST_HOURS, allow_inf_nan=False)] | None = None
    agent: Key | None = None
    discipline: Discipline | None = None
    project: Annotated[str, text.Line(100)] | None = None
    channels: Annotated[
        list[AlertChannel], Field(max_length=2), AfterValidator(lambda given: list(dict.fromkeys(given)))
    ] = []
    webhook_url: Annotated[str, text.Line(2000), AfterValidator(_url)] | None = None
    enabled: bool = True

    model_config = ConfigDict(arbitrary_types_allowed=True)


class AlertRule(Stored, AlertRuleFields):
    """A rule, its threshold in whole tokens, messages or nanodollars.

    Its `revision` rises when what it measures changes; with that it has said nothing yet. One that is `declared` by the
    organism's file is changed there alone.
    """

    threshold: int  # type: ignore[assignment]  # as `units` makes it
    revision: int = 1
    from_settings: bool = False
    declared: bool = False
    created_at: datetime

    class Settings:
        """Where it is stored."""

        name = "alert_rules"


# ---------------------------------------------------------------- reads


async def every() -> Sequence[Row]:
    """Read all rules, oldest first."""
    found: Sequence[Row] = await database.collection(AlertRule).find({}).sort("_id", ASCENDING).to_list(MOST_RULES)
    return found


async def by_keys(keys: Sequence[Key]) -> Mapping[Key, Row]:
    """Find many rules at once; deleted ones are left out."""
    cursor = database.collection(AlertRule).find({"_id": {"$in": list(keys)}})
    return {row["_id"]: row async for row in cursor}


async def active(*, session: Session) -> Sequence[Row]:
    """Read the rules that are on."""
    cursor = database.collection(AlertRule).find({"enabled": True}, session=session).sort("_id", ASCENDING)
    found: Sequence[Row] = await cursor.to_list(MOST_RULES)
    return found


# ---------------------------------------------------------------- writes


async def create(values: Mapping[str, Any], *, now: datetime) -> Row:
    """Add a rule. Raises `BadInput` with every fault, `Conflict` past the most there may be."""
    checked = kept(text.validate(AlertRuleFields, values, partial=False))
    if await database.collection(AlertRule).count_documents({}) >= MOST_RULES:
        raise Conflict(f"There are {MOST_RULES} rules already. Delete one first.")
    row = {"_id": Key(), **checked, "revision": 1, "from_settings": False, "created_at": now}
    await database.collection(AlertRule).insert_one(row)
    return row


async def update(rule: Key, values: Mapping[str, Any]) -> Row:
    """Change the given fields of a rule and no others."""
    checked = text.validate(AlertRuleFields, values)

    async def body(session: Session) -> Row:
        changed = dict(checked)
        rows = database.collection(AlertRule)
        before = await rows.find_one({"_id": rule}, session=session)
        if before is None:
            raise _no_rule()
        if before.get("declared"):
            raise _is_declared()
        after = {**before, **changed}
        _fit(after)
        if "threshold" in changed:
            changed["threshold"] = units(after["metric"], Decimal(after["threshold"]))
        elif AlertMetric.COST in {before["metric"], after["metric"]} and before["metric"] != after["metric"]:
            raise BadInput.at("threshold", "Say the threshold too: its unit changes with this metric.", code="REQUIRED")
        measured = any(changed.get(name, before[name]) != before[name] for name in _MEASURED)
        stored: Row = await database.change_and_read(
            rows,
            {"_id": rule},
            {"$set": {**changed, "from_settings": False}, "$inc": {"revision": int(measured)}},
            session=session,
        )
        return stored

    return await database.transaction(AlertRule, body)


async def delete(rule: Key) -> None:
    """Delete a rule; its alerts stay."""
    if rule == DEFAULT_RULE:
        raise Conflict(
            "The default rule comes from the settings and cannot be deleted. Disable it instead.", field="id"
        )
    rows = database.collection(AlertRule)
    if not (await rows.delete_one({"_id": rule, "declared": {"$ne": True}})).deleted_count:
        raise _is_declared() if await rows.find_one({"_id": rule}) else _no_rule()


async def declare(
    rule: Key, values: Mapping[str, Any] | None, *, before: Row | None, now: datetime, session: Session
) -> None:
    """Have a rule as the organism's file declares it; None deletes it, and its alerts stay."""
    rows = database.collection(AlertRule)
    if values is None:
        await rows.delete_one({"_id": rule}, session=session)
        return
    measured = before is None or any(values[name] != before[name] for name in _MEASURED)
    await rows.update_one(
        {"_id": rule},
        {
            "$set": {**values, "declared": True},
            "$setOnInsert": {"from_settings": False, "created_at": now},
            "$inc": {"revision": int(measured)},
        },
        upsert=True,
        session=session,
    )


async def keep_default(*, threshold: int, cooldown_hours: float, now: datetime) -> None:
    """Have the rule that the settings describe; one that an admin has changed is left as it is."""
    said = {"threshold": threshold, "cooldown_hours": cooldown_hours}
    born = {
        "name": "Lifetime tokens",
        "metric": AlertMetric.TOTAL_TOKENS.value,
        "window": AlertWindow.LIFETIME.value,
        "percents": [100],
        "agent": None,
        "discipline": None,
        "project": None,
        "channels": [AlertChannel.EMAIL.value],
        "webhook_url": None,
        "enabled": True,
        "from_settings": True,
        "revision": 1,
        "created_at": now,
    }
    rows = database.collection(AlertRule)
    await rows.update_one({"_id": DEFAULT_RULE}, {"$setOnInsert": {**born, **said}}, upsert=True)
    await rows.update_one(
        {"_id": DEFAULT_RULE, "from_settings": True, "threshold": {"$ne": threshold}},
        {"$set": said, "$inc": {"revision": 1}},
    )
    await rows.update_one({"_id": DEFAULT_RULE, "from_settings": True}, {"$set": said})


# ---------------------------------------------------------------- rules


def kept(values: Mapping[str, Any]) -> dict[str, Any]:
    """Write the fields of a new rule, each of them checked, as stored. Raises `BadInput` for those that do not fit."""
    _fit(values)
    return {**values, "threshold": units(values["metric"], values["threshold"])}


def applies(rule: Row, agent: Row) -> bool:
    """Whether an agent is in the scope of a rule."""
    return (
        (rule["agent"] is None or rule["agent"] == agent["_id"])
        and (rule["discipline"] is None or rule["discipline"] == agent["discipline"])
        and (rule["project"] is None or rule["project"] == agent["project"])
    )


FIGURES: Final[Mapping[str, tuple[str, ...]]] = {
    AlertMetric.TOTAL_TOKENS: ("prompt_tokens", "completion_tokens", "unsplit_tokens"),
    AlertMetric.PROMPT_TOKENS: ("prompt_tokens",),
    AlertMetric.COMPLETION_TOKENS: ("completion_tokens",),
    AlertMetric.MESSAGES: ("messages",),
    AlertMetric.COST: ("cost_nanodollars",),
}
"""The kept figures that each metric adds up."""


def measure(metric: str, figures: Mapping[str, int]) -> int:
    """Add up what a metric measures."""
    return sum(figures.get(name, 0) for name in FIGURES[metric])


def days_of(window: str, day: date) -> tuple[date, date]:
    """Give the first and last day of the calendar window that holds a day."""
    if window == AlertWindow.WEEK:
        first = day - timedelta(days=day.weekday())
        return first, first + timedelta(days=6)
    if window == AlertWindow.MONTH:
        first = day.replace(day=1)
        return first, (first + timedelta(days=31)).replace(day=1) - timedelta(days=1)
    return day, day


def start_of(day: date, zone: ZoneInfo) -> datetime:
    """Give the moment at which a day of the company begins, in UTC."""
    return datetime(day.year, day.month, day.day, tzinfo=zone).astimezone(UTC)


def units(metric: str, threshold: Decimal) -> int:
    """Turn a threshold as people write it into what is stored. Raises `BadInput` for what a metric cannot have."""
    scaled = threshold.scaleb(9) if metric == AlertMetric.COST else threshold
    if scaled != scaled.to_integral_value():
        unit = "nanodollars" if metric == AlertMetric.COST else "tokens or messages"
        raise BadInput.at("threshold", f"A threshold is a whole number of {unit}.")
    if scaled > _LARGEST:
        raise BadInput.at("threshold", "This threshold is out of reach.")
    return int(scaled)


def shown(metric: str, value: int) -> Decimal:
    """Turn what is stored back into what people read: tokens, messages or US dollars."""
    return Decimal(value).scaleb(-9) if metric == AlertMetric.COST else Decimal(value)


def _fit(rule: Mapping[str, Any]) -> None:
    if AlertChannel.WEBHOOK in rule["channels"] and rule["webhook_url"] is None:
        raise BadInput.at("webhook_url", "A rule with the channel WEBHOOK needs a webhookUrl.", code="REQUIRED")


def _is_declared() -> Conflict:
    return Conflict("This rule is declared by the organism's file. Change the file and reload it instead.", field="id")


def _no_rule() -> NotFound:
    return NotFound("There is no such alert rule.", field="id")
