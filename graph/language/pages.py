"""Relay's connections over keyset pages, with opaque cursors that only fit the list they came from."""

import base64
import binascii
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Annotated, Any, Final, Generic, TypeVar

import orjson
import strawberry

from graph.language.describe import field, object_type
from models.errors import BadInput, Fault
from models.store.database import Key
from models.store.pages import Order, Page, Position, Window

T = TypeVar("T")

DEFAULT: Final = 20
MOST: Final = 100

First = Annotated[
    int | None,
    strawberry.argument(description="How many from the start, 1 to 100; 20 when neither this nor `last` is given."),
]
After = Annotated[str | None, strawberry.argument(description="Only what follows this cursor.")]
Last = Annotated[
    int | None, strawberry.argument(description="How many from the end, 1 to 100; not together with `first`.")
]
Before = Annotated[str | None, strawberry.argument(description="Only what stands before this cursor.")]


@object_type
class PageInfo:
    """Where a page lies in its list."""

    has_next_page: bool
    """Whether more follow after `endCursor`."""
    has_previous_page: bool
    """Whether some stand before `startCursor`."""
    start_cursor: str | None
    """Cursor of the first on this page; null on an empty page."""
    end_cursor: str | None
    """Cursor of the last on this page: pass it as `after` for the next page; null on an empty page."""


@object_type
class Edge(Generic[T]):
    """One item of a list, with its place in it."""

    scope: strawberry.Private[str]
    position: strawberry.Private[Position]
    node: T
    """The item."""

    @field
    def cursor(self) -> str:
        """Give its place in this list; opaque."""
        return encode(self.scope, self.position)


@object_type
class Connection(Generic[T]):
    """One page of a list. Cursors stay valid while items come and go."""

    scope: strawberry.Private[str]
    page: strawberry.Private[Page]
    nodes: list[T]
    """The items of this page."""
    count: strawberry.Private[Callable[[], Awaitable[int]]]

    @field
    def edges(self) -> list[Edge[T]]:
        """Give the items of this page with their cursors."""
        position = self.page.order.position
        return [
            Edge(scope=self.scope, position=position(row), node=node)
            for row, node in zip(self.page.rows, self.nodes, strict=True)
        ]

    @field
    def page_info(self) -> PageInfo:
        """Say where this page lies in the whole list."""
        page = self.page
        ends = [encode(self.scope, page.order.position(row)) for row in (page.rows[:1] + page.rows[-1:])]
        return PageInfo(
            has_next_page=page.has_next,
            has_previous_page=page.has_previous,
            start_cursor=ends[0] if ends else None,
            end_cursor=ends[-1] if ends else None,
        )

    @field
    async def total_count(self) -> int:
        """How many the whole list has; counted only when asked for."""
        return await self.count()


@dataclass(frozen=True, slots=True)
class Asked:
    """What a client asked for: a window of a list, and the name that its cursors carry."""

    window: Window
    scope: str

    def connection(self, page: Page, read: Callable[[Any], T], count: Callable[[], Awaitable[int]]) -> Connection[T]:
        """Shape a page of rows into a connection."""
        return Connection(scope=self.scope, page=page, nodes=[read(row) for row in page.rows], count=count)


def asked(
    name: str,
    order: Order,
    *,
    first: int | None = None,
    after: str | None = None,
    last: int | None = None,
    before: str | None = None,
) -> Asked:
    """Check the arguments of a list. Raises `BadInput` with every fault among them."""
    faults: list[Fault] = []
    if first is not None and last is not None:
        faults.append(Fault(("last",), "Give `first` or `last`, not both."))
    for argument, value in (("first", first), ("last", last)):
        if value is not None and not 1 <= value <= MOST:
            faults.append(Fault((argument,), f"`{argument}` lies between 1 and {MOST}."))
    scope = f"{name}:{order.field}:{'-' if order.descending else '+'}"
    positions: dict[str, Position | None] = {"after": None, "before": None}
    for argument, cursor in (("after", after), ("before", before)):
        if cursor is not None:
            try:
                positions[argument] = decode(scope, cursor)
            except ValueError:
                faults.append(Fault((argument,), f"`{argument}` is no cursor of this list in this order."))
    if faults:
        raise BadInput(faults)
    size = last if last is not None else first if first is not None else DEFAULT
    return Asked(Window(size, positions["after"], positions["before"], backwards=last is not None), scope)


def bounded(first: int | None, *, most: int = MOST) -> int:
    """Check the `first` of a plain list; a null is the default."""
    first = DEFAULT if first is None else first
    if not 1 <= first <= most:
        raise BadInput.at("first", f"`first` lies between 1 and {most}.")
    return first


def encode(scope: str, position: Position) -> str:
    """Write a place in a list as an opaque cursor."""
    return base64.urlsafe_b64encode(orjson.dumps([scope, *map(_tagged, position)])).decode().rstrip("=")


def decode(scope: str, cursor: str) -> Position:
    """Read a cursor back; ValueError for what is none, or comes from another list or order."""
    try:
        found, value, key = orjson.loads(base64.urlsafe_b64decode(cursor.encode("ascii") + b"=" * (-len(cursor) % 4)))
        if found != scope:
            raise ValueError(found)
        return _untagged(value), _untagged(key)
    except (TypeError, KeyError, OverflowError, binascii.Error) as error:
        raise ValueError(cursor) from error


def _tagged(value: Any) -> Any:  # noqa: ANN401  # whatever a collection may be sorted by
    if isinstance(value, datetime):
        return {"at": value.isoformat()}
    if isinstance(value, Key):
        return {"key": str(value)}
    return value


def _untagged(value: Any) -> Any:  # noqa: ANN401  # whatever a collection may be sorted by
    if isinstance(value, dict):
        if "at" in value:
            return datetime.fromisoformat(value["at"]).astimezone(UTC)
        if Key.is_valid(value["key"]):
            return Key(value["key"])
        raise ValueError(value)
    if isinstance(value, list) or (isinstance(value, int) and abs(value) >= 2**63):
        raise ValueError(value)
    return value
