"""What has been counted since the last reset of usage: sums that stand in the documents of months, as `running`."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from models.store.database import Key, Row

Place = tuple[int, Key, str]
"""Period, agent and model: they name a document. What was added up of former months stands under period 0."""


@dataclass(slots=True)
class Run:
    """What has been counted in one place since the last reset."""

    first: datetime
    last: datetime
    sums: dict[str, int] = field(default_factory=dict)

    @classmethod
    def of(cls, row: Row) -> "Run":
        """Read it from a document."""
        kept = dict(row["running"])
        return cls(kept.pop("first_used_at"), kept.pop("last_used_at"), kept)

    def add(self, other: "Run") -> None:
        """Add what another has counted."""
        self.first, self.last = min(self.first, other.first), max(self.last, other.last)
        for name, value in other.sums.items():
            self.sums[name] = self.sums.get(name, 0) + value


def note(runs: dict[Place, Run], place: Place, run: Run) -> None:
    """Add to what runs in one place."""
    known = runs.get(place)
    if known is None:
        runs[place] = run
    else:
        known.add(run)


def write(run: Run, change: Mapping[str, dict[str, Any]]) -> None:
    """Write it into the change of a document, beside what else changes there."""
    change["$inc"].update((f"running.{name}", value) for name, value in run.sums.items() if value)
    change["$min"]["running.first_used_at"], change["$max"]["running.last_used_at"] = run.first, run.last
