"""What a document asks for: its shape measured before anything is validated, its cost before anything is run.

Each fragment is measured once, however often it is spread: a document of 1 kB can spread one fragment a million times.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any, Final

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
    VariableNode,
    get_named_type,
    is_abstract_type,
    is_composite_type,
    is_list_type,
)
from graphql.type import GraphQLInterfaceType, GraphQLNullableType, get_nullable_type

from models.errors import TooComplex


@dataclass(frozen=True, slots=True)
class Limits:
    """The most that one operation may ask for."""

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

# How many of something a list holds, by the argument that says so, and when it says nothing.
_SIZES: Final[Mapping[str, int]] = {"first": 20, "last": 20, "days": 30, "hours": 24}
_UNSAID: Final = 10
_MOST_SAID: Final = 1000
_INTROSPECTION: Final = 5000


@dataclass(frozen=True, slots=True)
class Weight:
    """What one field costs: its objects, times what each of them costs.

    `size` is how many, or the name of the variable that says it. A connection is one object and holds `size` of others.
    """

    size: int | str
    default: int
    fixed: int
    each: tuple["Weight", ...]
    is_connection: bool = False

    def cost(self, variables: Mapping[str, Any]) -> int:
        """Add up, for given values of variables."""
        size = self.size
        if isinstance(size, str):
            said = variables.get(size, self.default)
            size = said if isinstance(said, int) and not isinstance(said, bool) else self.default
        size = min(max(size, 0), _MOST_SAID)
        within = self.fixed + sum(weight.cost(variables) for weight in self.each)
        return 1 + within * size if self.is_connection else size * (1 + within)


def weigh(schema: GraphQLSchema, tree: DocumentNode, operation: OperationDefinitionNode) -> Weight:
    """Weigh an operation that is valid and within the limits of shape. Leaves cost nothing; an object costs 1."""
    fragments = {each.name.value: each for each in tree.definitions if isinstance(each, FragmentDefinitionNode)}
    defaults = {
        each.variable.name.value: int(each.default_value.value)
        for each in operation.variable_definitions or ()
        if isinstance(each.default_value, IntValueNode)
    }
    root = schema.get_root_type(operation.operation)
    return Weight(1, 1, 0, _Weighing(schema, fragments, defaults).within(operation.selection_set, root))


@dataclass(frozen=True, slots=True)
class _Weighing:
    schema: GraphQLSchema
    fragments: Mapping[str, FragmentDefinitionNode]
    defaults: Mapping[str, int]

    def within(self, selections: SelectionSetNode | None, parent: GraphQLNamedType | None) -> tuple[Weight, ...]:
        found: list[Weight] = []
        for selection in selections.selections if selections else ():
            if isinstance(selection, FieldNode):
                found += self._field(selection, parent)
            elif isinstance(selection, InlineFragmentNode):
                condition = selection.type_condition
                inner = self.schema.get_type(condition.name.value) if condition else parent
                found += self.within(selection.selection_set, inner)
            elif isinstance(selection, FragmentSpreadNode) and selection.name.value in self.fragments:
                fragment = self.fragments[selection.name.value]
                found += self.within(fragment.selection_set, self.schema.get_type(fragment.type_condition.name.value))
        return tuple(found)

    def _field(self, node: FieldNode, parent: GraphQLNamedType | None) -> list[Weight]:
        name = node.name.value
        if name in {"__schema", "__type"}:
            return [Weight(1, 1, _INTROSPECTION, ())]
        if not isinstance(parent, GraphQLObjectType | GraphQLInterfaceType) or name not in parent.fields:
            return []
        field = parent.fields[name]
        kind = get_named_type(field.type)
        if not (is_composite_type(kind) or is_abstract_type(kind)):
            return []
        size, default = self._size(node, field.args)
        is_connection = kind.name.endswith("Connection")
        in_connection = parent.name.endswith("Connection") and name in {"nodes", "edges"}
        nullable: GraphQLNullableType = get_nullable_type(field.type)
        if in_connection or not (is_connection or is_list_type(nullable)):
            # Of a connection's objects the connection itself knows how many.
            size, default = 1, 1
        return [Weight(size, default, 0, self.within(node.selection_set, kind), is_connection)]

    def _size(self, node: FieldNode, arguments: Mapping[str, Any]) -> tuple[int | str, int]:
        given = {each.name.value: each.value for each in node.arguments or ()}
        if {"from", "to"} & given.keys() & arguments.keys():
            return 366, 366
        for name, unsaid in _SIZES.items():
            value = given.get(name)
            if isinstance(value, IntValueNode):
                return int(value.value), unsaid
            if isinstance(value, VariableNode):
                return value.name.value, self.defaults.get(value.name.value, unsaid)
        return next(((size, size) for name, size in _SIZES.items() if name in arguments), (_UNSAID, _UNSAID))
