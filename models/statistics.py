"""The company in figures: agents by what they are, months against each other; from kept figures, never from events."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from typing import Any, Final

from models.agents import Agent
from models.store import database
from models.store.database import Key, Row
from models.usage.days import FIGURES, Totals, UsageMonth
from models.users import Role, User

MOST_PROJECTS: Final = 100


@dataclass(frozen=True, slots=True)
class Shares:
    """How many agents there are, as a whole and by what they are; None stands for those of which nobody has said."""

    total: int
    unclaimed: int
    by_status: Mapping[str, int]
    by_audit_status: Mapping[str, int]
    by_discipline: Mapping[str | None, int]
    by_project: Mapping[str | None, int]


@dataclass(frozen=True, slots=True)
class People:
    """How many accounts there are, and how many of those that may sign in were here lately."""

    total: int
    active: int
    admins: int
    seen_last_day: int
    seen_last_week: int
    seen_last_month: int
    last_seen_at: datetime | None


@dataclass(frozen=True, slots=True)
class Months:
    """This month, the whole last month, and as much of the last as has passed of this one."""

    this: Totals
    last: Totals
    last_to_date: Totals


# ---------------------------------------------------------------- reads


async def shares() -> Shares:
    """Count agents; of projects the hundred largest."""
    by = {
        name: [{"$group": {"_id": f"${name}", "count": {"$sum": 1}}}, {"$sort": {"count": -1, "_id": 1}}]
        for name in ("status", "audit_status", "discipline", "project")
    }
    by["project"].append({"$limit": MOST_PROJECTS})
    pipeline: list[Row] = [
        {"$match": {"deleted_at": None}},
        {"$project": {"status": 1, "audit_status": 1, "discipline": 1, "project": 1, "owner": 1, "_id": 0}},
        {"$facet": {**by, "unclaimed": [{"$match": {"owner": None}}, {"$count": "count"}]}},
    ]
    (found,) = await database.aggregate(Agent, pipeline)
    counts = {name: {row["_id"]: row["count"] for row in found[name]} for name in by}
    return Shares(
        total=sum(counts["status"].values()),
        unclaimed=found["unclaimed"][0]["count"] if found["unclaimed"] else 0,
        by_status=counts["status"],
        by_audit_status=counts["audit_status"],
        by_discipline=counts["discipline"],
        by_project=counts["project"],
    )


async def people(now: datetime) -> People:
    """Count accounts; a week is 7 days, a month 30."""

    def those(*wanted: Any) -> Row:  # noqa: ANN401  # expressions of MongoDB's
        return {"$sum": {"$cond": [{"$and": list(wanted)}, 1, 0]}}

    def seen(days: int) -> Row:
        return those("$active", {"$gte": ["$last_seen_at", now - timedelta(days=days)]})

    group: Row = {
        "_id": None,
        "total": those(),
        "active": those("$active"),
        "admins": those("$active", {"$eq": ["$role", Role.ADMIN.value]}),
        "seen_last_day": seen(1),
        "seen_last_week": seen(7),
        "seen_last_month": seen(30),
        "last_seen_at": {"$max": "$last_seen_at"},
    }
    (row,) = await database.aggregate(User, [{"$group": group}, {"$unset": "_id"}])
    return People(**row)


async def months(today: date) -> Months:
    """Sum this month and the last over all agents, deleted ones too: what they used has been used."""
    this, last = _period(today), _period(today.replace(day=1) - timedelta(days=1))
    until_today = {"$lte": ["$$cell.k", f"{today.day:02d}"]}
    facets = {
        "this": _summed({"period": this}, by="$period"),
        "last": _summed({"period": last}, by="$period"),
        "last_to_date": _summed({"period": last}, by="$period", only=until_today),
    }
    pipeline: list[Row] = [{"$match": {"period": {"$in": [this, last]}}}, {"$facet": facets}]
    (found,) = await database.aggregate(UsageMonth, pipeline)
    return Months(**{name: _totals(rows[0]) if rows else Totals() for name, rows in found.items()})


async def top_agents(today: date, *, count: int) -> Sequence[tuple[Key, Totals]]:
    """Give the agents with the most tokens this month, and what they used; deleted ones too."""
    tokens = {"$add": ["$prompt_tokens", "$completion_tokens", "$unsplit_tokens"]}
    pipeline: list[Row] = [
        *_summed({"period": _period(today)}, by="$agent"),
        {"$addFields": {"tokens": tokens}},
        {"$match": {"tokens": {"$gt": 0}}},
        {"$sort": {"tokens": -1, "_id": 1}},
        {"$limit": count},
    ]
    return [(row["_id"], _totals(row)) for row in await database.aggregate(UsageMonth, pipeline)]


# ---------------------------------------------------------------- rules


def _period(day: date) -> int:
    return day.year * 100 + day.month


def _summed(where: Mapping[str, Any], *, by: str, only: Any = True) -> list[Row]:  # noqa: ANN401  # an expression of MongoDB's
    """Add up packed figures in the database: one row for each value of `by`; `only` picks cells."""

    def cells(name: str) -> Row:
        found = {"$objectToArray": {"$ifNull": [f"${name}", {}]}}
        chosen = found if only is True else {"$filter": {"input": found, "as": "cell", "cond": only}}
        return {"$map": {"input": chosen, "as": "cell", "in": "$$cell.v"}}

    flat: Row = {
        "key": by,
        **{name: {"$sum": cells(name)} for name in FIGURES},
        "first": {"$min": cells("first_used_at")},
        "last": {"$max": cells("last_used_at")},
    }
    group: Row = {
        "_id": "$key",
        **{name: {"$sum": f"${name}"} for name in FIGURES},
        "first": {"$min": "$first"},
        "last": {"$max": "$last"},
    }
    return [{"$match": where}, {"$project": flat}, {"$group": group}]


def _totals(row: Row) -> Totals:
    return Totals({name: row[name] for name in FIGURES}, row["first"], row["last"])
