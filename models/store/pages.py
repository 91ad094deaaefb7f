"""Keyset pages: a position in an order, no count of rows to skip, so that page 1,000 costs what page 1 costs."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

from models.store.database import ASCENDING, DESCENDING, Collection, Row

Position = tuple[Any, Any]
"""A row's place in an order: the value it is sorted by, and its `_id` to tell equals apart."""


@dataclass(frozen=True, slots=True)
class Order:
    """A total order over a collection: by `field`, then by `_id`, with an index that delivers it sorted."""

    field: str
    descending: bool = False

    def sort(self, *, backwards: bool) -> list[tuple[str, int]]:
        """Give the driver's sort; `_id` alone where it is itself the field."""
        direction = DESCENDING if self.descending != backwards else ASCENDING
        return [(self.field, direction)] if self.field == "_id" else [(self.field, direction), ("_id", direction)]

    def position(self, row: Row) -> Position:
        """Read a row's place."""
        value: Any = row
        for part in self.field.split("."):
            value = value.get(part) if value is not None else None
        return value, row["_id"]

    def rank(self, row: Row) -> tuple[bool, Any, Any]:
        """Give what rows are compared by, null before every value as MongoDB has it."""
        value, key = self.position(row)
        return value is not None, value if value is not None else 0, key

    def beyond(self, position: Position, *, backwards: bool) -> list[Mapping[str, Any]]:
        """Give alternatives, of which each row after a position (before it, when `backwards`) meets exactly one.

        Each is one range of the index, and they are given in the order in which they are read.
        """
        value, key = position
        rising = self.descending == backwards
        compare = "$gt" if rising else "$lt"
        if self.field == "_id":
            return [{"_id": {compare: key}}]
        same = {self.field: value, "_id": {compare: key}}
        # null sorts before every value, yet no comparison with null matches a value: say in words what lies beyond it.
        if value is None:
            return [same, {self.field: {"$ne": None}}] if rising else [same]
        if rising:
            return [same, {self.field: {"$gt": value}}]
        return [same, {self.field: {"$lt": value}}, {self.field: None}]


@dataclass(frozen=True, slots=True)
class Window:
    """Which part of an order is asked for: `size` rows after `after`, or the last `size` before `before`."""

    size: int
    after: Position | None = None
    before: Position | None = None
    backwards: bool = False


@dataclass(frozen=True, slots=True)
class Page:
    """Rows in the order asked for, whichever way they were read."""

    rows: list[dict[str, Any]]
    has_next: bool
    has_previous: bool
    order: Order


async def read(
    source: Collection,
    where: Mapping[str, Any],
    *,
    order: Order,
    window: Window,
    projection: Mapping[str, Any] | None = None,
    hint: str | None = None,
) -> Page:
    """Read one page: one command, of `size` + 1 documents at most from each range of the index that it lies in."""
    ranges = _ranges(where, order, window)
    if len(ranges) == 1 or hint:
        cursor = source.find(ranges[0] if len(ranges) == 1 else {"$or": ranges}, projection)
        cursor = cursor.sort(order.sort(backwards=window.backwards)).limit(window.size + 1)
        if hint:
            cursor = cursor.hint(hint)
        return _shaped(await cursor.to_list(window.size + 1), order, window)
    first, *others = (_stages(each, order, window, projection=projection) for each in ranges)
    unions = [{"$unionWith": {"coll": source.name, "pipeline": stages}} for stages in others]
    found = await source.aggregate([*first, *unions])
    # A union is in no order that one may count on.
    rows = sorted(await found.to_list(None), key=order.rank, reverse=order.descending != window.backwards)
    return _shaped(rows, order, window)


async def read_each(
    source: Collection,
    keys: Sequence[Any],
    *,
    field: str,
    where: Mapping[str, Any] = MappingProxyType({}),
    order: Order,
    window: Window,
    projection: Mapping[str, Any] | None = None,
) -> Mapping[Any, Page]:
    """Read the same page of many lists, each of the rows whose `field` is one of `keys`: one command for all.

    The index needs `field` before those of the order: each list is then read as `read` would, no further than the page.
    """
    ranges = _ranges(where, order, window)
    parts = [f"rows{place}" for place in range(len(ranges))]
    lookups = [
        {
            "$lookup": {
                "from": source.name,
                "localField": "_id",
                "foreignField": field,
                "pipeline": _stages(each, order, window, projection=projection),
                "as": part,
            }
        }
        for part, each in zip(parts, ranges, strict=True)
    ]
    pipeline: Sequence[Mapping[str, Any]] = [
        {"$documents": [{"_id": key} for key in keys]},
        *lookups,
        {"$project": {"rows": {"$slice": [{"$concatArrays": [f"${part}" for part in parts]}, window.size + 1]}}},
    ]
    found = await source.database.aggregate(pipeline)
    return {each["_id"]: _shaped(each["rows"], order, window) async for each in found}


def _ranges(where: Mapping[str, Any], order: Order, window: Window) -> list[Mapping[str, Any]]:
    """Say what the page may hold, as ranges of the order's index, in the order in which they are read.

    Each is a query of its own: of one with alternatives MongoDB plans each alternative without the sort, takes an
    index without the filter's field for some, and then looks through all rows of the list (measured: 2,480 rows read
    for 20 that one in a hundred is).
    """
    after = order.beyond(window.after, backwards=False) if window.after else [{}]
    before = order.beyond(window.before, backwards=True) if window.before else [{}]
    leading, other = (before, after) if window.backwards else (after, before)
    rest = {"$or": other} if len(other) > 1 else other[0]
    return [_all(where, one, rest) for one in leading]


def _all(*conditions: Mapping[str, Any]) -> Mapping[str, Any]:
    said = [each for each in conditions if each]
    return {"$and": said} if len(said) > 1 else said[0] if said else {}


def _stages(
    where: Mapping[str, Any], order: Order, window: Window, *, projection: Mapping[str, Any] | None
) -> list[Mapping[str, Any]]:
    return [
        {"$match": where},
        {"$sort": dict(order.sort(backwards=window.backwards))},
        {"$limit": window.size + 1},
        *([{"$project": projection}] if projection else []),
    ]


def _shaped(rows: list[dict[str, Any]], order: Order, window: Window) -> Page:
    more = len(rows) > window.size
    del rows[window.size :]
    if window.backwards:
        rows.reverse()
        return Page(rows, has_next=window.before is not None, has_previous=more, order=order)
    return Page(rows, has_next=more, has_previous=window.after is not None, order=order)
