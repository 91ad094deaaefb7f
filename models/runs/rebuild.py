"""Metrics of versions counted anew from the runs: what differs is said, and repaired when asked."""

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from models.runs.recording import AgentRun, Sums, contribution
from models.runs.versions import AgentVersion, Metrics
from models.store import database
from models.store.database import Key, Session, UpdateOne

_FIGURES = tuple(name for name in Metrics.model_fields if name != "runtimes")


@dataclass(frozen=True, slots=True)
class Difference:
    """One kept figure that is not what the runs say."""

    version: Key
    figure: str
    kept: object
    right: object


@dataclass(slots=True)
class Report:
    """What a rebuild has found."""

    runs: int = 0
    differences: list[Difference] = field(default_factory=list)
    repaired: bool = False


async def rebuild(*, repair: bool, progress: Callable[[int], None] = lambda _: None) -> Report:
    """Count every run again, as of one moment; recording may go on meanwhile.

    What differs is repaired by adding the difference, so that runs recorded since are not lost.
    """
    report = Report()
    sums: dict[Key, Sums] = {}
    seen: dict[Key, datetime] = {}
    async with database.snapshot(AgentRun) as session:
        async for row in database.collection(AgentRun).find({}, session=session):
            version = row["version"]
            total = sums.setdefault(version, {})
            for name, value in contribution(row).items():
                total[name] = total.get(name, 0) + value
            seen[version] = max(seen.get(version, row["created_at"]), row["created_at"])
            report.runs += 1
            if report.runs % 10_000 == 0:
                progress(report.runs)
        async for row in database.collection(AgentVersion).find({}, session=session):
            right = sums.get(row["_id"], {})
            kept = _kept(row["metrics"])
            report.differences += [
                Difference(row["_id"], name, kept.get(name, 0), right.get(name, 0))
                for name in sorted(kept.keys() | right.keys())
                if kept.get(name, 0) != right.get(name, 0)
            ]
            if row["last_seen_at"] != seen.get(row["_id"]):
                report.differences.append(
                    Difference(row["_id"], "last_seen_at", row["last_seen_at"], seen.get(row["_id"]))
                )
    if repair and report.differences:
        await database.transaction(AgentVersion, lambda session: _repair(report.differences, session))
        report.repaired = True
    return report


def _kept(metrics: dict[str, Any]) -> Sums:
    runtimes = {f"runtimes.{name}": count for name, count in metrics["runtimes"].items()}
    return {name: metrics.get(name, 0) for name in _FIGURES} | runtimes


async def _repair(differences: list[Difference], session: Session) -> None:
    changes: dict[Key, dict[str, dict[str, Any]]] = {}
    for each in differences:
        change = changes.setdefault(each.version, {"$inc": {}, "$set": {}})
        if each.figure == "last_seen_at":
            change["$set"]["last_seen_at"] = each.right
        elif isinstance(each.right, int) and isinstance(each.kept, int):
            change["$inc"][f"metrics.{each.figure}"] = each.right - each.kept
    writes = [
        UpdateOne({"_id": version}, {operator: fields for operator, fields in change.items() if fields})
        for version, change in sorted(changes.items())
    ]
    await database.collection(AgentVersion).bulk_write(writes, ordered=False, session=session)
