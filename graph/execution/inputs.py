"""What clients send, turned into input objects: generated functions read JSON in one walk, straight into the objects.

They take what they know to be right. Anything else, a wrong type, an unknown field, a missing one, raises `Surprise`,
and graphql-core reads the value in its own way: it says what is wrong, or knows of a coercion that these leave out.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import MISSING, fields
from functools import partial
from typing import Any, Final, TypeAlias

from graphql import (
    GraphQLInputObjectType,
    GraphQLSchema,
    OperationDefinitionNode,
    Undefined,
    is_leaf_type,
    is_list_type,
    is_non_null_type,
)
from graphql.execution.get_variable_signature import get_variable_signature
from graphql.execution.values import VariableValues, VariableValueSource
from graphql.type import is_required_input_field
from strawberry import UNSET, Some
from strawberry.types.base import StrawberryList, StrawberryMaybe, StrawberryOptional, has_object_definition
from strawberry.types.lazy_type import LazyType
from strawberry.utils.str_converters import to_camel_case

from graph.execution.plan import Surprise
from models.errors import BadInput

Convert: TypeAlias = Callable[[Any], Any]

_ABSENT: Final = object()
_LARGEST: Final = 2**53 - 1
_TAKEN: Final[Mapping[str, str]] = {
    # What a JSON value looks like that is the value already.
    "String": "{v}.__class__ is str",
    "ID": "{v}.__class__ is str",
    "Boolean": "{v}.__class__ is bool",
    "Int": "{v}.__class__ is int and -2147483648 <= {v} <= 2147483647",
    "BigInt": f"{{v}}.__class__ is int and -{_LARGEST} <= {{v}} <= {_LARGEST}",
}


class Inputs:
    """The readers of a schema's input types, made as they are needed."""

    def __init__(self) -> None:
        self._objects: dict[str, Convert] = {}

    def reader(self, kind: Any) -> Convert:  # noqa: ANN401  # wrapped or not
        """Make the function that reads JSON of a type. It raises `Surprise`, or what a scalar raises."""
        return _Writer(self).reader(kind)

    def of_object(self, kind: GraphQLInputObjectType) -> Convert:
        """Make the function that reads an input object, once."""
        name = kind.name
        if name not in self._objects:
            # Types may hold themselves: whoever meets one that is being made finds it when it is called.
            self._objects[name] = partial(self._later, name)
            self._objects[name] = _Writer(self).of_object(kind)
        return self._objects[name]

    def _later(self, name: str, value: object) -> object:
        return self._objects[name](value)


class Variables:
    """The variables of one operation, read in one walk."""

    def __init__(self, inputs: Inputs, schema: GraphQLSchema, operation: OperationDefinitionNode) -> None:
        self._readers: list[tuple[str, Convert, Any]] = []
        self._is_plain = True
        for node in operation.variable_definitions or ():
            signature = get_variable_signature(schema, node)
            # Defaults are graphql-core's to read.
            if isinstance(signature, Exception) or node.default_value is not None:
                self._is_plain = False
                return
            self._readers.append((signature.name, inputs.reader(signature.type), signature))

    def read(self, given: Mapping[str, Any]) -> VariableValues | None:
        """Read values; None where graphql-core is to."""
        if not self._is_plain:
            return None
        sources: dict[str, VariableValueSource] = {}
        coerced: dict[str, Any] = {}
        try:
            for name, read, signature in self._readers:
                value = given.get(name, _ABSENT)
                if value is not _ABSENT:
                    coerced[name] = read(value)
                    sources[name] = VariableValueSource(signature, value)
                elif is_non_null_type(signature.type):
                    return None
                else:
                    sources[name] = VariableValueSource(signature, Undefined)
        except Exception:  # noqa: BLE001  # whatever it was, graphql-core says it in its words
            return None
        return VariableValues(sources, coerced)


class _Writer:
    """Writes the source of one reader."""

    def __init__(self, inputs: Inputs) -> None:
        self._inputs = inputs
        self._lines: list[str] = []
        self._names: dict[str, Any] = {"Surprise": Surprise, "absent": _ABSENT, "new": object.__new__, "Some": Some}

    def _line(self, depth: int, text: str) -> None:
        self._lines.append("    " * depth + text)

    def _name(self, value: object) -> str:
        name = f"c{len(self._names)}"
        self._names[name] = value
        return name

    def reader(self, kind: Any) -> Convert:  # noqa: ANN401  # wrapped or not
        self._line(0, "def read(value):")
        self._value(kind, "value", depth=1)
        return self._function()

    def of_object(self, kind: GraphQLInputObjectType) -> Convert:
        self._line(0, "def read(value):")
        self._object(kind, depth=1)
        return self._function()

    def _function(self) -> Convert:
        self._line(1, "return value")
        exec(compile("\n".join(self._lines), "<input>", "exec"), self._names)  # noqa: S102  # of our own words
        read: Convert = self._names["read"]
        return read

    def _value(self, kind: Any, name: str, *, depth: int) -> None:  # noqa: ANN401  # wrapped or not
        """Write what turns the JSON in `name` into the value of a type."""
        if is_non_null_type(kind):
            kind = kind.of_type
            self._line(depth, f"if {name} is None: raise Surprise")
        else:
            self._line(depth, f"if {name} is not None:")
            depth += 1
        if is_list_type(kind):
            items, item = f"l{len(self._lines)}", f"i{len(self._lines)}"
            self._line(depth, f"if {name}.__class__ is not list: raise Surprise")
            self._line(depth, f"{items} = []")
            self._line(depth, f"for {item} in {name}:")
            self._value(kind.of_type, item, depth=depth + 1)
            self._line(depth + 1, f"{items}.append({item})")
            self._line(depth, f"{name} = {items}")
        elif is_leaf_type(kind):
            is_taken = _TAKEN.get(kind.name, "False").format(v=name)
            self._line(depth, f"if not ({is_taken}): {name} = {self._name(_leaf(kind))}({name})")
        else:
            self._line(depth, f"{name} = {self._name(self._inputs.of_object(kind))}({name})")

    def _object(self, kind: GraphQLInputObjectType, *, depth: int) -> None:
        definition = kind.extensions["strawberry-definition"]
        defaults = {item.name: item for item in fields(definition.origin)}
        self._line(depth, "if value.__class__ is not dict: raise Surprise")
        # Copied, then set where something is given: nearly all of a large input is left out nearly always.
        kept: dict[str, Any] = {}
        start = len(self._lines)
        self._line(depth, "")
        self._line(depth, "known = 0")
        for spelled, field in kind.fields.items():
            item = field.extensions["strawberry-definition"]
            local = f"f{len(self._lines)}"
            self._line(depth, f"if {spelled!r} in value:")
            self._line(depth + 1, "known += 1")
            self._line(depth + 1, f"{local} = value[{spelled!r}]")
            self._value(field.type, local, depth=depth + 1)
            if definition.is_one_of or (
                isinstance(item.type, StrawberryMaybe) and not isinstance(item.type.of_type, StrawberryOptional)
            ):
                self._line(depth + 1, f"if {local} is None: raise Surprise")
            if isinstance(item.type, StrawberryMaybe):
                self._line(depth + 1, f"{local} = Some({local})")
            self._line(depth + 1, f"given[{item.python_name!r}] = {local}")
            default = defaults[item.python_name]
            if is_required_input_field(field) or default.default is default.default_factory is MISSING:
                self._line(depth, "else: raise Surprise")
            elif default.default_factory is not MISSING:
                self._line(depth, f"else: given[{item.python_name!r}] = {self._name(default.default_factory)}()")
            else:
                kept[item.python_name] = default.default
        self._lines[start] = "    " * depth + f"given = {self._name(kept)}.copy()"
        only_one = " or known != 1" if definition.is_one_of else ""
        self._line(depth, f"if known != len(value){only_one}: raise Surprise")
        self._line(depth, f"value = new({self._name(definition.origin)})")
        self._line(depth, "value.__dict__ = given")


def _leaf(kind: Any) -> Convert:  # noqa: ANN401  # a scalar or an enum
    def read(value: object) -> object:
        found = kind.coerce_input_value(value)
        if found is Undefined:
            raise Surprise
        return found

    return read


# ---------------------------------------------------------------- what graphql-core has read


def converter(kind: Any) -> Convert:  # noqa: ANN401  # one of Strawberry's types
    """Make the function that turns what graphql-core has read, or a reader already, into what a resolver takes.

    It does as Strawberry's `convert_argument`, which finds out anew for each value what its type is.
    """
    if isinstance(kind, LazyType):
        kind = kind.resolve_type()
    if isinstance(kind, StrawberryMaybe):
        return partial(_given, converter(kind.of_type), isinstance(kind.of_type, StrawberryOptional))
    if isinstance(kind, StrawberryOptional):
        inner = converter(kind.of_type)
        return lambda value: value if value is None or value is UNSET else inner(value)
    if isinstance(kind, StrawberryList):
        inner = converter(kind.of_type)
        return lambda values: [inner(value) for value in values]
    if has_object_definition(kind):
        return _Object(kind)
    return lambda value: value


def _given(inner: Convert, may_be_null: bool, value: object) -> Some[Any]:  # noqa: FBT001  # bound beforehand
    if value is None and not may_be_null:
        # The schema cannot say so: what may be left out is nullable there.
        raise BadInput.at("input", "A field that cannot be null is null. Leave it out to keep what is stored.")
    return Some(inner(value))


class _Object:
    """Turns a dict into an input object."""

    def __init__(self, kind: Any) -> None:  # noqa: ANN401  # an input class
        self._kind = kind
        self._fields: Sequence[tuple[str, str, Convert]] | None = None

    def __call__(self, value: Any) -> Any:  # noqa: ANN401  # a dict, or made already
        if value.__class__ is self._kind:
            return value
        if self._fields is None:
            # Only now: types may hold themselves.
            self._fields = [
                (spelled(item), item.python_name, converter(item.resolve_type()))
                for item in self._kind.__strawberry_definition__.fields
            ]
        given = {python: convert(value[name]) for name, python, convert in self._fields if name in value}
        return self._kind(**given)


def spelled(item: Any) -> str:  # noqa: ANN401  # a field or an argument of Strawberry's
    """Spell a name as GraphQL does."""
    return item.graphql_name or to_camel_case(item.python_name)
