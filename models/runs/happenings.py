"""What happens to runs, as it happens: each process follows the database's changes while somebody watches."""

from collections.abc import Mapping
from typing import Final

from models.runs.reports import RunStatus

_ACTIONS: Final[Mapping[str, str]] = {
    RunStatus.RUNNING.value: "started",
    RunStatus.COMPLETED.value: "completed",
    RunStatus.FAILED.value: "failed",
    RunStatus.TIMED_OUT.value: "timed out",
    RunStatus.CANCELLED.value: "was cancelled",
}


def action(status: str) -> str:
    """Say what a run of this status has done."""
    return _ACTIONS[status]
