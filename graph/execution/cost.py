"""What a document asks for: its shape measured before anything is validated, its cost before anything is run.

Each fragment is measured once, however often it is spread: a document of 1 kB can spread one fragment a million times.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from datetime import UTC, date, datetime, timedelta
from functools import partial
from typing import Any, Final, TypeAlias

from graphql import (
    DirectiveNode,
    DocumentNode,
    FieldNode,
    FragmentDefinitionNode,
    FragmentSpreadNode,
    GraphQLNamedType,
    GraphQLObjectType,
    GraphQLSchema,
    InlineFragmentNode,
    IntValueNode,
    OperationDefinitionNode,
    SelectionSetNode,
    StringValueNode,
    ValueNode,
    VariableNode,
    get_named_type,
    is_composite_type,
    is_list_type,
)
from graphql.type import GraphQLInterfaceType, get_nullable_type

from models.errors import TooComplex


@dataclass(frozen=True, slots=True)
class Limits:
    """The most that one operation may ask for."""

    length: int = 100_000
    tokens: int = 2000
    depth: int = 15
    fields: int = 1000
    aliases: int = 100
    root_fields: int = 50
    directives: int = 50
    cost: int = 50_000


DEFAULT: Final = Limits()

# ---------------------------------------------------------------- shape


@dataclass(frozen=True, slots=True)
class _Shape:
    depth: int = 0
    fields: int = 0
    aliases: int = 0
    root_fields: int = 0
    directives: int = 0

    def beside(self, other: "_Shape") -> "_Shape":
        return _Shape(
            max(self.depth, other.depth),
            *(getattr(self, each.name) + getattr(other, each.name) for each in fields(self)[1:]),
        )


_NAMES: Final = {
    "depth": "levels deep",
    "fields": "fields",
    "aliases": "aliases",
    "root_fields": "root fields",
    "directives": "directives",
}


def check_shape(tree: DocumentNode, limits: Limits) -> None:
    """Measure every operation of a document. Raises `TooComplex` for the first limit that one is over."""
    fragments = {each.name.value: each for each in tree.definitions if isinstance(each, FragmentDefinitionNode)}
    measure = _Measure(fragments)
    for operation in tree.definitions:
        if isinstance(operation, OperationDefinitionNode):
            shape = measure.of(operation.selection_set, is_root=True).beside(_directives(operation.directives))
            for name, words in _NAMES.items():
                over(name, getattr(shape, name), getattr(limits, name), words)


def over(name: str, actual: int, limit: int, words: str) -> None:
    """Raise `TooComplex` where a limit is passed."""
    if actual > limit:
        # Nobody wants to read the 300 digits of a fragment bomb, and some cannot: JSON ends at 2^53.
        actual = min(actual, 10**15)
        raise TooComplex(
            f"This operation has {actual} {words}; {limit} is the most there may be. Ask for less at once.",
            measure=name,
            actual=actual,
            limit=limit,
        )


class _Measure:
    def __init__(self, fragments: Mapping[str, FragmentDefinitionNode]) -> None:
        self._fragments = fragments
        self._known: dict[tuple[str, bool], _Shape] = {}

    def of(self, selections: SelectionSetNode | None, *, is_root: bool) -> _Shape:
        shape = _Shape()
        for selection in selections.selections if selections else ():
            shape = shape.beside(_directives(selection.directives))
            if isinstance(selection, FieldNode):
                shape = shape.beside(self._field(selection, is_root=is_root))
            elif isinstance(selection, InlineFragmentNode):
                shape = shape.beside(self.of(selection.selection_set, is_root=is_root))
            elif isinstance(selection, FragmentSpreadNode):
                shape = shape.beside(self._fragment(selection.name.value, is_root=is_root))
        return shape

    def _field(self, node: FieldNode, *, is_root: bool) -> _Shape:
        within = self.of(node.selection_set, is_root=False)
        # Introspection is deeper than any question needs to be; a rule of its own bounds it.
        depth = 0 if node.name.value in {"__schema", "__type"} else within.depth
        return _Shape(depth + 1, within.fields + 1, within.aliases + bool(node.alias), int(is_root), within.directives)

    def _fragment(self, name: str, *, is_root: bool) -> _Shape:
        key = name, is_root
        if key not in self._known:
            # One that spreads itself is refused by validation; here it counts nothing.
            self._known[key] = _Shape()
            found = self._fragments.get(name)
            self._known[key] = self.of(found.selection_set, is_root=is_root) if found else _Shape()
        return self._known[key]


def _directives(found: Sequence[DirectiveNode] | None) -> _Shape:
    return _Shape(directives=len(found or ()))


# ---------------------------------------------------------------- cost

_SIZES: Final[Mapping[str, int]] = {"first": 20, "last": 20, "days": 30, "hours": 24}
"""The arguments that say how many a list holds, and how many it holds when they say nothing."""

_UNSAID: Final = 10
_MOST_SAID: Final = 1000
_MOST_DAYS: Final = 366
_INTROSPECTION: Final = 5000
_LONGEST_NUMBER: Final = 15

WEIGHT: Final = "weight"
"""The mark, in a field's metadata, of what costs more to find than its objects say: as much as so many of them."""

Variables: TypeAlias = Mapping[str, Any]
Size: TypeAlias = Callable[[Variables], int | None]


@dataclass(frozen=True, slots=True)
class Weight:
    """What one field costs: its objects, times what each of them costs.

    Of `sizes` the largest counts, `unsaid` when none says anything. A connection is one object and holds as many of
    others.
    """

    sizes: tuple[Size, ...]
    unsaid: int
    fixed: int
    each: tuple["Weight", ...]
    is_connection: bool = False

    def cost(self, variables: Variables) -> int:
        """Add up, for given values of variables."""
        said = [size for size in (find(variables) for find in self.sizes) if size is not None]
        size = min(max(said, default=self.unsaid), _MOST_SAID)
        within = sum(weight.cost(variables) for weight in self.each)
        return 1 + self.fixed + within * size if self.is_connection else self.fixed + size * (1 + within)


def weigh(schema: GraphQLSchema, tree: DocumentNode, operation: OperationDefinitionNode) -> Weight:
    """Weigh an operation that is valid and within the limits of shape. Leaves cost nothing; an object costs 1."""
    fragments = {each.name.value: each for each in tree.definitions if isinstance(each, FragmentDefinitionNode)}
    defaults = {
        each.variable.name.value: _literal(each.default_value)
        for each in operation.variable_definitions or ()
        if each.default_value
    }
    root = schema.get_root_type(operation.operation)
    return Weight((), 1, 0, _Weighing(schema, fragments, defaults).within([operation.selection_set], root))


@dataclass(frozen=True, slots=True)
class _Weighing:
    schema: GraphQLSchema
    fragments: Mapping[str, FragmentDefinitionNode]
    defaults: Mapping[str, int | str | None]

    def within(
        self, selections: Iterable[SelectionSetNode | None], parent: GraphQLNamedType | None
    ) -> tuple[Weight, ...]:
        # What has one name in the answer is fetched once, however often it is asked for.
        fields: dict[tuple[str, str], list[FieldNode]] = {}
        parents: dict[tuple[str, str], GraphQLNamedType] = {}
        waiting = [(each, parent) for each in selections]
        spread: set[str] = set()
        while waiting:
            selection_set, kind = waiting.pop(0)
            for selection in selection_set.selections if selection_set else ():
                if isinstance(selection, FieldNode):
                    if kind:
                        key = kind.name, (selection.alias or selection.name).value
                        fields.setdefault(key, []).append(selection)
                        parents[key] = kind
                elif isinstance(selection, InlineFragmentNode):
                    condition = selection.type_condition
                    inner = self.schema.get_type(condition.name.value) if condition else kind
                    waiting.append((selection.selection_set, inner))
                elif isinstance(selection, FragmentSpreadNode) and selection.name.value not in spread:
                    spread.add(selection.name.value)
                    if fragment := self.fragments.get(selection.name.value):
                        inner = self.schema.get_type(fragment.type_condition.name.value)
                        waiting.append((fragment.selection_set, inner))
        return tuple(weight for key, nodes in fields.items() for weight in self._field(nodes, parents[key]))

    def _field(self, nodes: Sequence[FieldNode], parent: GraphQLNamedType) -> Iterator[Weight]:
        name = nodes[0].name.value
        if name in {"__schema", "__type"}:
            yield Weight((), 1, _INTROSPECTION, ())
        if not isinstance(parent, GraphQLObjectType | GraphQLInterfaceType) or name not in parent.fields:
            return
        field = parent.fields[name]
        definition = field.extensions.get("strawberry-definition")
        fixed = definition.metadata.get(WEIGHT, 0) if definition else 0
        kind = get_named_type(field.type)
        if not is_composite_type(kind):
            if fixed:
                yield Weight((), 0, fixed, ())
            return
        sizes, unsaid = self._sizes(nodes[0], field.args)
        is_connection = kind.name.endswith("Connection")
        in_connection = parent.name.endswith("Connection") and name in {"nodes", "edges"}
        if in_connection or not (is_connection or is_list_type(get_nullable_type(field.type))):
            # Of a connection's objects the connection itself knows how many.
            sizes, unsaid = (), 1
        yield Weight(sizes, unsaid, fixed, self.within([each.selection_set for each in nodes], kind), is_connection)

    def _sizes(self, node: FieldNode, arguments: Mapping[str, Any]) -> tuple[tuple[Size, ...], int]:
        given = {each.name.value: self._value(each.value) for each in node.arguments or ()}
        unsaid = next((size for name, size in _SIZES.items() if name in arguments), _UNSAID)
        sizes = [partial(_number, given[name]) for name in _SIZES if name in given]
        if "from" in arguments and "from" in given:
            # These say how many days on their own, whatever `days` says.
            sizes.append(partial(_days, given["from"], given.get("to", _nothing)))
        return tuple(sizes), unsaid

    def _value(self, node: ValueNode) -> Callable[[Variables], Any]:
        if isinstance(node, VariableNode):
            name = node.name.value
            return lambda variables: variables[name] if name in variables else self.defaults.get(name)
        literal = _literal(node)
        return lambda _: literal


def _literal(node: ValueNode) -> int | str | None:
    if isinstance(node, IntValueNode):
        return int(node.value) if len(node.value) <= _LONGEST_NUMBER else _MOST_SAID
    return node.value if isinstance(node, StringValueNode) else None


def _nothing(_: Variables) -> None:
    return None


def _number(find: Callable[[Variables], Any], variables: Variables) -> int | None:
    value = find(variables)
    # 100.0 is an Int too.
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    return max(value, 0) if isinstance(value, int) and not isinstance(value, bool) else None


def _days(
    find_first: Callable[[Variables], Any], find_last: Callable[[Variables], Any], variables: Variables
) -> int | None:
    first, last = find_first(variables), find_last(variables)
    if first is None:
        return None
    try:
        end = date.fromisoformat(last) if last is not None else datetime.now(UTC).date() + timedelta(days=1)
        return min(max((end - date.fromisoformat(first)).days + 1, 0), _MOST_DAYS)
    except (TypeError, ValueError):
        return _MOST_DAYS
