"""From a stored row to a GraphQL type: fields of one name meet, so that adding one touches document and type alone."""

from collections.abc import Callable, Collection, Iterable, Iterator
from dataclasses import MISSING, fields
from inspect import getattr_static
from typing import Any, TypeVar, overload

from graphql import FieldNode, FragmentSpreadNode, GraphQLObjectType, GraphQLResolveInfo, InlineFragmentNode
from strawberry.types import Info

from graph.language.describe import READS, WITHIN
from graph.language.nodes import Node, encode
from models.store.database import Row

T = TypeVar("T")


class Value:
    """A field that stands in the row of its object, under a key."""

    __slots__ = ("default", "key")

    def __init__(self, key: str, default: object = None) -> None:
        self.key = key
        self.default = default

    @overload
    def __get__(self, item: None, kind: type) -> "Value": ...
    @overload
    def __get__(self, item: object, kind: type) -> Any: ...  # noqa: ANN401  # whatever is stored
    def __get__(self, item: Any, kind: type) -> Any:
        """Read it."""
        return self if item is None else item.row.get(self.key, self.default)


class Derived:
    """A field that needs another look at the row; made only when asked for."""

    __slots__ = ("look",)

    def __init__(self, look: Callable[[Row], Any]) -> None:
        self.look = look

    @overload
    def __get__(self, item: None, kind: type) -> "Derived": ...
    @overload
    def __get__(self, item: object, kind: type) -> Any: ...  # noqa: ANN401  # whatever is made of it
    def __get__(self, item: Any, kind: type) -> Any:
        """Make it."""
        return self if item is None else self.look(item.row)


def made(cls: type[T], values: dict[str, Any]) -> T:
    """Make an object of its values without its constructor: a list has thousands, and this takes a third as long."""
    item = object.__new__(cls)
    item.__dict__ = values
    return item


def reader(cls: type[T], **derive: Callable[[Row], Any]) -> Callable[[Row], T]:
    """Make the function that builds `cls` from a row.

    Every constructor field is the row's value of the same name (its default where the row has none); `derive` names
    the few that need another look at the row. A Node's `id` and `key` come from `_id`; `row` is the row itself.
    Objects hold their row and nothing else: what nobody asks for is not made.
    """
    if issubclass(cls, Node):
        kind = cls.__name__
        cls.key = Value("_id")
        cls.id = Derived(lambda row: encode(kind, row["_id"]))  # type: ignore[assignment]  # a field by another means
    for item in fields(cls):  # type: ignore[arg-type]  # every Strawberry type is a dataclass
        if item.name in derive:
            setattr(cls, item.name, Derived(derive[item.name]))
        elif item.init and item.name not in {"row", "id", "key"}:
            default = item.default_factory() if item.default_factory is not MISSING else item.default
            setattr(cls, item.name, Value(item.name, None if default is MISSING else default))

    def read(row: Row) -> T:
        return made(cls, {"row": row})

    return read


# ---------------------------------------------------------------- what a selection needs of its rows


def needed(info: Info, cls: type) -> Collection[str] | None:
    """Name what a field's selection needs of the rows behind each `cls` that it lists; None for everything.

    A field by a method needs what its `reading` says, and everything where that says nothing.
    """
    raw: GraphQLResolveInfo[Any] = info._raw_info  # noqa: SLF001  # Strawberry shows it only as objects of its own
    key = ("needed", cls, *map(id, raw.field_nodes))
    kept = info.context.kept
    if key not in kept:
        nodes: list[FieldNode] = []
        for top in _fields(raw, raw.field_nodes):
            if top.name.value == "nodes":
                nodes += _fields(raw, [top])
            elif top.name.value == "edges":
                nodes += _fields(raw, [edge for edge in _fields(raw, [top]) if edge.name.value == "node"])
        keys = _keys(raw, cls, nodes)
        kept[key] = None if None in keys else tuple(sorted(filter(None, keys)))
    found: Collection[str] | None = kept[key]
    return found


def selected(info: Info, *below: str) -> frozenset[str]:
    """Name the fields, as GraphQL spells them, that are selected of the objects that a field gives.

    `below`: of those that its field of this name gives, and so on.
    """
    raw: GraphQLResolveInfo[Any] = info._raw_info  # noqa: SLF001  # Strawberry shows it only as objects of its own
    key = ("selected", below, *map(id, raw.field_nodes))
    kept = info.context.kept
    if key not in kept:
        nodes: Iterable[FieldNode] = raw.field_nodes
        for name in below:
            nodes = [each for each in _fields(raw, nodes) if each.name.value == name]
        kept[key] = frozenset(each.name.value for each in _fields(raw, nodes))
    found: frozenset[str] = kept[key]
    return found


def _keys(raw: GraphQLResolveInfo[Any], cls: type, nodes: Iterable[FieldNode]) -> set[str | None]:
    """Give the keys of what is selected; None among them stands for everything."""
    kind = raw.schema.type_map[cls.__strawberry_definition__.name]  # type: ignore[attr-defined]  # Strawberry sets it
    assert isinstance(kind, GraphQLObjectType)  # noqa: S101  # tells the type checker
    found: set[str | None] = set()
    for node in nodes:
        if node.name.value not in kind.fields:
            continue
        definition = kind.fields[node.name.value].extensions["strawberry-definition"]
        attribute = getattr_static(cls, definition.python_name)
        within = definition.metadata.get(WITHIN)
        if isinstance(attribute, Value):
            found.add(attribute.key)
        elif within:
            (key,) = definition.metadata[READS]
            inner = _keys(raw, within, _fields(raw, [node]))
            # Of `__typename` alone nothing is needed but that it is there.
            found.update({key} if None in inner or not inner else {f"{key}.{each}" for each in inner})
        elif definition.python_name != "id":
            found.update(definition.metadata.get(READS, (None,)))
    # A path and what lies below it cannot both be asked for.
    return {key for key in found if key is None or key.partition(".")[0] == key or key.partition(".")[0] not in found}


def _fields(raw: GraphQLResolveInfo[Any], parents: Iterable[FieldNode]) -> Iterator[FieldNode]:
    waiting = [each.selection_set for each in parents]
    spread: set[str] = set()
    while waiting:
        selections = waiting.pop()
        for each in selections.selections if selections else ():
            if isinstance(each, FieldNode):
                yield each
            elif isinstance(each, InlineFragmentNode):
                waiting.append(each.selection_set)
            elif isinstance(each, FragmentSpreadNode) and each.name.value not in spread:
                spread.add(each.name.value)
                waiting.append(raw.fragments[each.name.value].selection_set)
