"""The rules of one budget, on plain values: what may be held, what is spent, what is given back, what is to be told."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any, Final

from models.budgets.kept import Scope
from models.errors import AgentHubError, BudgetExhausted, Conflict, RateLimited
from models.store.database import Key

PERCENTS: Final = (75, 90, 95, 100)
"""Percents of a limit at which a budget speaks."""
MOST_TOKENS: Final = 10**12
"""The most tokens that a limit, a reservation, a settlement or an event may have."""
MOST_HOLDS: Final = 1000
"""So many reservations may be open at once in one budget: its document stays below 100 kB."""

NOTHING: Final = {"prompt_tokens": 0, "completion_tokens": 0}


@dataclass(frozen=True, slots=True)
class Crossing:
    """A percent of its limit that a budget has come to; `agent`: by whose spending, where that is known."""

    scope: Scope
    percent: int
    used: int
    limit: int
    agent: Key | None
    at: datetime


@dataclass(slots=True)
class Account:
    """One budget at one moment, `now` by the database's clock; its row is changed in place."""

    row: dict[str, Any]
    now: datetime
    is_changed: bool = field(default=False, init=False)

    def __post_init__(self) -> None:
        """Give back what is held past its time."""
        ended = [hold for hold in self.row["holds"] if hold["expires_at"] <= self.now]
        self.row["holds"] = [hold for hold in self.row["holds"] if hold["expires_at"] > self.now]
        self.row["unsettled"] += len(ended)
        self.row["unsettled_tokens"] += sum(hold["tokens"] for hold in ended)

    @property
    def spent(self) -> int:
        """What has been spent."""
        total: int = self.row["prompt_tokens"] + self.row["completion_tokens"]
        return total

    @property
    def reserved(self) -> int:
        """What is held."""
        return sum(hold["tokens"] for hold in self.row["holds"])

    def refusal(self, tokens: int) -> AgentHubError | None:
        """Say why so many tokens cannot be held; None when they can."""
        if self.row["closed_at"] is not None:
            return Conflict("It is closed: nothing can be reserved any more.", field="thread")
        if self.spent + self.reserved + tokens > self.row["limit"]:
            return BudgetExhausted.of(self.row["limit"], spent=self.spent, reserved=self.reserved, asked=tokens)
        if len(self.row["holds"]) >= MOST_HOLDS:
            soonest = min(hold["expires_at"] for hold in self.row["holds"])
            return RateLimited(
                f"{MOST_HOLDS} reservations are open in this budget. Settle some, or try again when they expire.",
                retry_after_ms=max(1, round((soonest - self.now) / timedelta(milliseconds=1))),
            )
        return None

    def hold(self, key: Key, tokens: int, *, lease: timedelta) -> datetime:
        """Hold tokens under a key; gives when that ends."""
        expires_at = self.now + lease
        self.row["holds"].append({"key": key, "tokens": tokens, "expires_at": expires_at})
        self.is_changed = True
        return expires_at

    def extend(self, key: Key, *, lease: timedelta) -> datetime | None:
        """Let the lease of what is held begin anew; gives when it ends, None when nothing is held under the key."""
        for hold in self.row["holds"]:
            if hold["key"] == key:
                hold["expires_at"] = self.now + lease
                self.is_changed = True
                return self.now + lease
        return None

    def release(self, key: Key, tokens: int) -> bool:
        """Hold these tokens no more; says whether they were held still, or had been given back already."""
        held = [hold for hold in self.row["holds"] if hold["key"] != key]
        in_time = len(held) < len(self.row["holds"])
        self.row["holds"] = held
        if not in_time:
            self.row["unsettled"] -= 1
            self.row["unsettled_tokens"] -= tokens
            self.row["settled_late"] += 1
        self.is_changed = True
        return in_time

    def spend(self, prompt_tokens: int, completion_tokens: int, *, agent: Key | None) -> None:
        """Count what was spent, whether or not there was any left: the money is gone."""
        self.row["prompt_tokens"] += prompt_tokens
        self.row["completion_tokens"] += completion_tokens
        self.row["agent"] = agent or self.row["agent"]
        self.is_changed = True

    def shown(self) -> dict[str, Any]:
        """Give the row as reads give it."""
        return {**self.row, "reserved": self.reserved}

    def limit_to(self, tokens: int) -> None:
        """Set the limit."""
        self.row["limit"] = tokens
        self.is_changed = True

    def finish(self) -> tuple[list[Crossing], bool]:
        """Bring what follows from the figures up to date, once all is done.

        Gives the percents that it has come to since it last told, and whether it was exhausted and is no more. What a
        higher limit takes back may be told again.
        """
        spent, limit, before = self.spent, self.row["limit"], self.row["told"]
        reached = [percent for percent in PERCENTS if spent * 100 >= limit * percent]
        self.row["told"] = reached
        self.row["percent"] = spent * 100 / limit
        scope, agent = Scope.of(self.row), self.row["agent"]
        crossings = [
            Crossing(scope, percent, spent, limit, agent, self.now) for percent in reached if percent not in before
        ]
        return crossings, PERCENTS[-1] in before and PERCENTS[-1] not in reached


def counted(reservation: Mapping[str, Any]) -> tuple[int, int]:
    """Give the prompt and completion tokens that a reservation counts for.

    A call may be settled by its holder and reported as usage, or several may be reported under one reservation: what
    says more is what was spent, whichever of them comes first.
    """
    settled, reported = reservation["settled"] or NOTHING, reservation["reported"] or NOTHING
    larger = max(settled, reported, key=lambda said: sum(said.values()))
    return larger["prompt_tokens"], larger["completion_tokens"]
