"""What runs come to, as clients read it: of versions, of agents, day by day."""

from collections.abc import Sequence
from datetime import date, datetime
from decimal import Decimal
from functools import cached_property
from typing import Final

from strawberry import Private

from graph.context import Info
from graph.language.describe import field, object_type
from graph.language.rows import reader, selected
from graph.language.scalars import BigInt, as_usd
from models.runs import figures
from models.runs.figures import Owner
from models.runs.histograms import Spread
from models.store.database import Key, Row
from models.usage import days as calendar

_ZERO: Final = BigInt(0)
_SPREAD: Final = frozenset({"p50RuntimeMs", "p95RuntimeMs", "p99RuntimeMs"})


@object_type
class Measured:
    """What some runs come to."""

    row: Private[Row]
    total_runs: BigInt = _ZERO
    """Runs recorded, those that have not ended too."""
    completed_runs: BigInt = _ZERO
    """Those that ended well."""
    failed_runs: BigInt = _ZERO
    """Those that ended with an error."""
    timed_out_runs: BigInt = _ZERO
    """Those that took too long and were ended."""
    cancelled_runs: BigInt = _ZERO
    """Those that somebody ended."""

    @field
    def average_runtime_ms(self) -> float | None:
        """Give the mean runtime in milliseconds of the runs that ended and said it; null without any."""
        timed = self.row["timed_runs"]
        return self.row["runtime_ms"] / timed if timed else None

    @field
    def p50_runtime_ms(self) -> float | None:
        """Give the runtime in milliseconds that half of these runs did not exceed, within 2 %; null without any."""
        return self._spread.percentile(0.50)

    @field
    def p95_runtime_ms(self) -> float | None:
        """Give the runtime in milliseconds that 95 % of these runs did not exceed, within 2 %; null without any."""
        return self._spread.percentile(0.95)

    @field
    def p99_runtime_ms(self) -> float | None:
        """Give the runtime in milliseconds that 99 % of these runs did not exceed, within 2 %; null without any."""
        return self._spread.percentile(0.99)

    @field
    def success_rate(self) -> float | None:
        """Give the percentage (0 to 100) of the runs that ended which COMPLETED; null while none has ended."""
        finished = self.row["finished_runs"]
        return self.row["completed_runs"] / finished * 100 if finished else None

    @field
    def spend(self) -> Decimal:
        """Give the known cost of the runs in US dollars."""
        return as_usd(self.row["cost_nanodollars"])

    @cached_property
    def _spread(self) -> Spread:
        return Spread(self.row["runtimes"])


@object_type
class RunMetrics(Measured):
    """What the runs of an agent come to: kept as they are recorded, right at once, the same cost after a million."""

    @field
    def last_seen_at(self) -> datetime | None:
        """Give the beginning of the latest run; null without any."""
        seen: datetime | None = self.row["seen"]
        return seen

    @classmethod
    async def of_agent(cls, info: Info, agent: Key) -> "RunMetrics":
        """Read an agent's."""
        row = await info.context.load(figures.of_agents, agent)
        return _metrics({**row, "seen": row["last_at"]})


_metrics = reader(RunMetrics)


@object_type
class VersionMetrics(RunMetrics):
    """What the runs of a version come to: kept as they are recorded, right at once, the same cost after a million."""

    @classmethod
    def of(cls, row: Row, *, seen: datetime | None) -> "VersionMetrics":
        """Shape what is kept of a version."""
        return _version_metrics({**row, "seen": seen})


_version_metrics = reader(VersionMetrics)


@object_type
class RunDay(Measured):
    """The runs that began on one day of the company's."""

    day: date
    """The day, of the company's time zone."""


_day = reader(RunDay)


async def timeline(
    info: Info, owners: Sequence[Owner], days: int | None, from_: date | None, to: date | None
) -> list[RunDay]:
    """Read the days asked for of one owner, or of some added up. Raises `BadInput`."""
    first, last = calendar.window(days, from_, to, today=calendar.today(info.context.now, info.context.services.zone))
    wanted = not selected(info).isdisjoint(_SPREAD)
    return [
        _day(row) for row in await info.context.load(figures.timelines, owners, first=first, last=last, spread=wanted)
    ]
