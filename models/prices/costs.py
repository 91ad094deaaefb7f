"""What a call of a model costs by the price table: which price holds, and whole nanodollars."""

from bisect import bisect_right
from collections.abc import Iterable, Sequence
from datetime import datetime
from decimal import Decimal
from typing import Any, Final

from models import text
from models.store.database import Row

PER: Final = 10**6
"""Prices are for so many tokens."""

MOST: Final = Decimal(1_000_000)
"""The most that one event may cost, in US dollars; what would cost more has an unknown cost."""

_MOST: Final = int(MOST) * 10**9
_REMEMBERED: Final = 10_000

Group = tuple[Sequence[datetime], Sequence[Row]]
"""The prices of one prefix and provider, by the moment from which each holds."""


class Table:
    """The price table as it was read once. It remembers which prices a model can have, since events name few models."""

    def __init__(self, prices: Iterable[Row]) -> None:
        """`prices`: stored ones, in any order."""
        groups: dict[tuple[str, str | None], list[Row]] = {}
        for price in prices:
            groups.setdefault((price["model_prefix"], price["provider"]), []).append(price)
        self._groups: dict[tuple[str, str | None], Group] = {}
        for key, rows in groups.items():
            rows.sort(key=_valid_from)
            self._groups[key] = [row["valid_from"] for row in rows], rows
        self._longest = max((len(prefix) for prefix, _ in self._groups), default=0)
        self._known: dict[tuple[str, str | None], Sequence[Group]] = {}

    def find(self, model: str, provider: str | None, at: datetime) -> Row | None:
        """Find the price of a call at a moment.

        It is that of the longest prefix of the model's name that has one by then; among equals, one for the provider
        comes before one for any.
        """
        named = model, provider
        groups = self._known.get(named)
        if groups is None:
            if len(self._known) >= _REMEMBERED:
                self._known.clear()
            groups = self._known[named] = self._of(model, provider)
        for starts, prices in groups:
            place = bisect_right(starts, at)
            if place:
                return prices[place - 1]
        return None

    def _of(self, model: str, provider: str | None) -> Sequence[Group]:
        name = text.fold(model)
        providers = (text.fold(provider), None) if provider else (None,)
        return [
            group
            for length in range(min(len(name), self._longest), 0, -1)
            for each in providers
            if (group := self._groups.get((name[:length], each))) is not None
        ]


def price(row: dict[str, Any], table: Table) -> None:
    """Write into an event as stored what it costs by the table, where nobody has said and the table knows."""
    if "cost_nanodollars" in row:
        return
    found = table.find(row["model"], row.get("provider"), row["at"])
    if found is None:
        return
    cost = nanodollars(found, row)
    if cost <= _MOST:
        row["cost_nanodollars"] = cost
        row["price"] = found["_id"]


def nanodollars(found: Row, event: Row) -> int:
    """Give what an event costs at a price: each token once, one rounding, the last half to even.

    The counts are inclusive: cached and cache-write tokens are parts of the prompt, reasoning tokens of the completion.
    What has no price of its own costs what its whole does.
    """
    cached, written, reasoning = (event.get(f"{name}_tokens", 0) for name in ("cached", "cache_write", "reasoning"))
    total = (
        (event["prompt_tokens"] - cached - written) * found["prompt"]
        + cached * _own(found, "cached", "prompt")
        + written * _own(found, "cache_write", "prompt")
        + (event["completion_tokens"] - reasoning) * found["completion"]
        + reasoning * _own(found, "reasoning", "completion")
    )
    cost, rest = divmod(total, PER)
    return int(cost + (2 * rest > PER or (2 * rest == PER and cost % 2 == 1)))


def _own(found: Row, part: str, whole: str) -> int:
    amount: int = found[whole] if found[part] is None else found[part]
    return amount


def _valid_from(row: Row) -> datetime:
    moment: datetime = row["valid_from"]
    return moment
