"""A selection turned into Python: one generated function reads its plain fields, whatever resolves waits its turn.

A function takes all values of one level and gives what the answer holds of them. Fields that a resolver answers are
left open in the answer and noted, so that the executor asks for a whole level at once. The functions check as
graphql-core does; whatever they cannot vouch for raises, and graphql-core has the last word.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from inspect import getattr_static
from typing import Any, Final, TypeAlias

from graphql import (
    GraphQLBoolean,
    GraphQLEnumType,
    GraphQLField,
    GraphQLFloat,
    GraphQLID,
    GraphQLInt,
    GraphQLLeafType,
    GraphQLObjectType,
    GraphQLOutputType,
    GraphQLString,
    Undefined,
    is_leaf_type,
    is_list_type,
    is_non_null_type,
    is_object_type,
)
from graphql.execution import Executor
from graphql.execution.collect_fields import FieldDetails
from graphql.execution.values import get_argument_values
from graphql.pyutils import Path
from strawberry.schema.schema_converter import get_arguments
from strawberry.types import Info
from strawberry.types.field import StrawberryField

from graph.language.rows import Derived, Value

Holders: TypeAlias = tuple[list[Any], list[dict[str, Any]]]
"""The objects whose field is to be resolved, and beside each the part of the answer that waits for it."""

Read: TypeAlias = Callable[[Sequence[Any], Callable[["Later"], Holders]], list[Any]]
"""Turns all values of a level into what the answer holds; the second argument notes what is to be resolved."""

_TYPENAME: Final = "__typename"
_KEEPING: Final[dict[str, str]] = {
    # What a leaf of this type looks like when nothing need be done to it.
    GraphQLString.name: "{v}.__class__ is str",
    GraphQLID.name: "{v}.__class__ is str",
    GraphQLBoolean.name: "{v}.__class__ is bool",
    GraphQLInt.name: "{v}.__class__ is int and -2147483648 <= {v} <= 2147483647",
    GraphQLFloat.name: "{v}.__class__ is float and {v} - {v} == 0.0",
    "BigInt": "{v}.__class__ is int",
}
# Their writers raise, or give a string.
_WRITTEN: Final = frozenset({"DateTime", "Date", "Decimal"})


class Surprise(Exception):
    """A value that the generated code cannot vouch for."""


class Unplanned(Exception):
    """A selection that is left to graphql-core."""


@dataclass(slots=True, eq=False)
class Later:
    """A field that a resolver answers: how to ask, and how to read what it says."""

    name: str
    field: GraphQLField
    definition: StrawberryField
    details: list[FieldDetails]
    parent: GraphQLObjectType
    ask: Callable[..., Any]
    is_async: bool
    read: Read
    in_tasks: bool = False
    """Whether each object is asked in a task of its own, even where there are many."""

    def bind(self, executor: Executor[Any]) -> Callable[[Any], Any]:
        """Make the function that asks one object, with the arguments of this execution."""
        nodes = [each.node for each in self.details]
        path = Path(None, self.name, self.parent.name)
        info = Info(_raw_info=executor.build_resolve_info(self.field, nodes, self.parent, path), _field=self.definition)
        given = get_argument_values(self.field, nodes[0], executor.variable_values) if self.field.args else {}
        schema = executor.schema._strawberry_schema  # type: ignore[attr-defined]  # noqa: SLF001  # Strawberry sets it
        _, arguments = get_arguments(
            field=self.definition,
            source=None,
            info=info,
            kwargs=given,
            config=schema.config,
            scalar_registry=schema.schema_converter.scalar_registry,
        )
        return partial(self.ask, **arguments)


def plan(executor: Executor[Any], kind: GraphQLOutputType, details: list[FieldDetails]) -> Read:
    """Make the function that reads values of a type for the selections of one field. Raises `Unplanned`."""
    writer = _Writer(executor)
    writer.line(1, "out = []")
    writer.line(1, "for o in values:")
    result = writer.value(kind, "o", details, depth=2)
    writer.line(2, f"out.append({result})")
    return writer.function()


class _Writer:
    """Writes the source of one function."""

    def __init__(self, executor: Executor[Any]) -> None:
        self._executor = executor
        self._lines: list[str] = []
        self._names: dict[str, Any] = {"Surprise": Surprise}
        self._later: list[str] = []

    def line(self, depth: int, text: str) -> None:
        self._lines.append("    " * depth + text)

    def function(self) -> Read:
        notes = [f"    parents_{name}, holders_{name} = note({name})" for name in self._later]
        source = "\n".join(["def read(values, note):", *notes, *self._lines, "    return out"])
        try:
            exec(compile(source, "<plan>", "exec"), self._names)  # noqa: S102  # of our own words; names of the schema's
        except (SyntaxError, RecursionError, MemoryError) as error:
            raise Unplanned from error
        read: Read = self._names["read"]
        return read

    def _name(self, value: object) -> str:
        name = f"c{len(self._names)}"
        self._names[name] = value
        return name

    def value(self, kind: Any, source: str, details: list[FieldDetails], *, depth: int) -> str:  # noqa: ANN401  # wrappers
        """Write what turns the expression `source` into what the answer holds; gives the name that holds it."""
        nullable = not is_non_null_type(kind)
        kind = kind if nullable else kind.of_type
        result = f"v{len(self._lines)}"
        self.line(depth, f"{result} = {source}")
        if is_leaf_type(kind):
            self._leaf(kind, result, depth=depth, nullable=nullable)
            return result
        if nullable:
            self.line(depth, f"if {result} is not None:")
            depth += 1
        if is_list_type(kind):
            self.line(depth, f"if {result}.__class__ is not list: raise Surprise")
            items, item = f"l{len(self._lines)}", f"i{len(self._lines)}"
            self.line(depth, f"{items} = []")
            self.line(depth, f"for {item} in {result}:")
            self.line(depth + 1, f"{items}.append({self.value(kind.of_type, item, details, depth=depth + 1)})")
            self.line(depth, f"{result} = {items}")
        elif is_object_type(kind):
            self._object(kind, result, details, depth=depth)
        else:
            raise Unplanned
        return result

    def _leaf(self, kind: GraphQLLeafType, name: str, *, depth: int, nullable: bool) -> None:
        slow = self._name(partial(_coerce, kind, nullable))
        if isinstance(kind, GraphQLEnumType):
            known = self._name(_enum_names(kind))
            self.line(depth, f"{name} = {known}.get({name}) or {slow}({name})")
        elif kind.name in _WRITTEN:
            write = self._name(kind.coerce_output_value)
            self.line(depth, f"{name} = {write}({name}) if {name} is not None else {slow}({name})")
        else:
            is_plain = _KEEPING.get(kind.name, "False").format(v=name)
            is_null = f"{name} is not None and " if nullable else ""
            self.line(depth, f"if {is_null}not ({is_plain}): {name} = {slow}({name})")

    def _object(self, kind: GraphQLObjectType, name: str, details: list[FieldDetails], *, depth: int) -> None:
        origin: type = getattr(kind.extensions.get("strawberry-definition"), "origin", object)
        if kind.is_type_of:
            # A subclass may be another type; graphql-core asks it.
            self.line(depth, f"if {name}.__class__ is not {self._name(origin)}: raise Surprise")
        row = ""
        if any(isinstance(each, Value | Derived) for each in vars(origin).values()):
            row = f"r{len(self._lines)}"
            self.line(depth, f"{row} = {name}.row")
        pairs: list[str] = []
        later: list[str] = []
        for answer, selected in self._executor.collect_subfields(kind, details).grouped_field_set.items():
            definition = _definition(kind, selected[0])
            if definition is None:
                pairs.append(f"{answer!r}: {kind.name!r}")
                continue
            field = kind.fields[selected[0].node.name.value]
            resolver = definition.base_resolver
            if resolver and (resolver.is_async or resolver.info_parameter or definition.arguments):
                ask: Any = resolver.wrapped_func
                read = plan(self._executor, field.type, selected)
                later.append(self._name(Later(answer, field, definition, selected, kind, ask, resolver.is_async, read)))
                pairs.append(f"{answer!r}: None")
            else:
                source = self._source(definition, name, origin, row)
                pairs.append(f"{answer!r}: {self.value(field.type, source, selected, depth=depth)}")
        holder = f"d{len(self._lines)}"
        self.line(depth, f"{holder} = {{{', '.join(pairs)}}}")
        for each in later:
            self.line(depth, f"parents_{each}.append({name}); holders_{each}.append({holder})")
        self.line(depth, f"{name} = {holder}")
        self._later += later

    def _source(self, definition: StrawberryField, name: str, origin: type, row: str) -> str:
        if definition.base_resolver:
            return f"{self._name(definition.base_resolver.wrapped_func)}({name})"
        attribute = getattr_static(origin, definition.python_name, None)
        if isinstance(attribute, Value):
            default = "" if attribute.default is None else f", {self._name(attribute.default)}"
            return f"{row}.get({attribute.key!r}{default})"
        if isinstance(attribute, Derived):
            return f"{self._name(attribute.look)}({row})"
        return f"{name}.{definition.python_name}"


def _definition(kind: GraphQLObjectType, selected: FieldDetails) -> StrawberryField | None:
    """Find what Strawberry knows of a field; None for `__typename`. Raises `Unplanned` for a field of another make."""
    name = selected.node.name.value
    if name == _TYPENAME:
        return None
    field = kind.fields.get(name)
    definition = field.extensions.get("strawberry-definition") if field else None
    if not isinstance(definition, StrawberryField) or definition.extensions or selected.fragment_variable_values:
        raise Unplanned
    if definition.base_resolver and not definition.base_resolver.self_parameter:
        raise Unplanned
    return definition


def _coerce(kind: GraphQLLeafType, nullable: bool, value: object) -> object:  # noqa: FBT001  # bound by `partial`
    if value is None:
        if nullable:
            return None
        raise Surprise
    written = kind.coerce_output_value(value)
    if written is None or written is Undefined:
        raise Surprise
    return written


def _enum_names(kind: GraphQLEnumType) -> dict[object, str]:
    values = [value.value for value in kind.values.values()]
    members = [kind.coerce_output_value(each) for each in values]
    return dict(zip(values, members, strict=True))
