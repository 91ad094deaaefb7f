"""Pictures of figures: `make bench` beside its floors, and a comparison with other servers beside the fastest."""

import json
import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import matplotlib as mpl
import typer
from matplotlib import pyplot as plt

from bench.report import Figure

mpl.use("Agg")

_COLOURS: Final[Mapping[str, str]] = {"here": "#2f6f4f", "driver alone": "#8fb8a2", "bare ASGI": "#cccccc"}
_SECTIONS: Final = ("Q1", "Q2", "Q3", "M1")
_OURS: Final = "project"


def beside_floors(figures: Sequence[Figure], path: Path) -> None:
    """Draw the CPU of each measure beside that of its floors, on a scale where equal steps are equal ratios."""
    shown = [each for each in figures if each.unit.startswith("CPU")]
    if not shown:
        return
    figure, axes = plt.subplots(figsize=(9, 1 + 0.7 * len(shown)))
    for place, each in enumerate(reversed(shown)):
        sides = {"here": each.here, "driver alone": each.driver, "bare ASGI": each.bare}
        for lane, (name, values) in enumerate(sides.items()):
            if any(values):
                median = statistics.median(values)
                label = name if place == 0 else None
                axes.barh(place + 0.25 * (1 - lane), median, 0.24, color=_COLOURS[name], label=label)
    axes.set_yticks(range(len(shown)), [each.measure for each in reversed(shown)])
    axes.set_xscale("log")
    axes.set_xlabel("CPU ms of the answering process for each request")
    axes.legend()
    _save(figure, path)


def beside_others(results: Mapping[str, Any], path: Path) -> None:
    """Draw the CPU of each server for each kind of work, and the time until the last subscriber is told."""
    sections = [name for name in (*_SECTIONS, "S1") if name in results]
    figure, each_axes = plt.subplots(1, len(sections), figsize=(3 * len(sections), 3.4), squeeze=False)
    for name, axes in zip(sections, each_axes[0], strict=True):
        key = "last_ms" if name == "S1" else "cpu_ms"
        medians = {
            server: statistics.median(row[key] for row in rows)
            for server, rows in results[name].items()
            if server != "bare"
        }
        servers = sorted(medians, key=medians.__getitem__, reverse=True)
        colours = ["#2f6f4f" if server == _OURS else "#b9c4be" for server in servers]
        axes.barh([_named(each) for each in servers], [medians[each] for each in servers], color=colours)
        axes.set_title(name)
        axes.set_xlabel("ms to the last of 500" if name == "S1" else "CPU ms / request")
    _save(figure, path)


def _named(server: str) -> str:
    return "AgentHub" if server == _OURS else server


def _save(figure: Any, path: Path) -> None:  # noqa: ANN401  # the library's own
    figure.tight_layout()
    figure.savefig(path, dpi=110)
    plt.close(figure)


def main(results: Path, picture: Path) -> None:
    """Draw the results of a comparison with other servers (its `results.json`) into a PNG."""
    beside_others(json.loads(results.read_text()), picture)


if __name__ == "__main__":
    typer.run(main)
