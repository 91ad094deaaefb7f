"""Rows of results: a table for people, JSON for later comparison."""

import json
import os
import platform
import statistics
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from datetime import datetime
from importlib import metadata
from pathlib import Path
from typing import Any, Final

from rich.console import Console
from rich.table import Table

_RESULTS: Final = Path(__file__).parent / "results"
_PACKAGES: Final = ("strawberry-graphql", "graphql-core", "beanie", "motor", "pymongo", "uvicorn", "uvloop", "aiohttp")


@dataclass(frozen=True, slots=True)
class Figure:
    """One figure of each round, the service's and its floors' side by side, in the same order."""

    measure: str
    unit: str
    here: Sequence[float]
    driver: Sequence[float] = ()
    bare: Sequence[float] = ()

    def ratio(self, floor: Sequence[float]) -> float:
        """Give the median of the rounds' ratios: what disturbs a round disturbs both of its sides."""
        return statistics.median(one / other for one, other in zip(self.here, floor, strict=True) if other)


@dataclass(slots=True)
class Report:
    """What one run has found."""

    started: datetime
    options: dict[str, Any]
    figures: list[Figure] = field(default_factory=list)

    def print(self) -> None:
        """Print the table."""
        table = Table(title=f"AgentHub, {self.started:%Y-%m-%d}: medians of rounds, floors measured in the same rounds")
        table.add_column("measure")
        table.add_column("unit")
        for name in ("here", "driver alone", "ratio", "bare ASGI", "ratio"):
            table.add_column(name, justify="right")
        for each in self.figures:
            cells = [each.measure, each.unit, _short(statistics.median(each.here))]
            for floor in (each.driver, each.bare):
                known = any(floor)
                cells += [_short(statistics.median(floor)), _short(each.ratio(floor))] if known else ["", ""]
            table.add_row(*cells)
        # Wide enough for whole lines also where the output is no terminal.
        console = Console()
        if not console.is_terminal:
            console = Console(width=150)
        console.print(table)

    def write(self) -> Path:
        """Write everything, each round, as JSON; says where."""
        _RESULTS.mkdir(exist_ok=True)
        path = _RESULTS / f"{self.started:%Y-%m-%dT%H-%M-%S}.json"
        machine = {
            "cores": os.cpu_count(),
            "system": platform.platform(),
            "python": platform.python_version(),
            **{name: metadata.version(name) for name in _PACKAGES},
        }
        content = {
            "started": self.started.isoformat(),
            "options": self.options,
            "machine": machine,
            "figures": [asdict(each) for each in self.figures],
        }
        path.write_text(json.dumps(content, indent=1))
        return path


def _short(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.1f}" if value >= 10 else f"{value:.2g}"
