"""Words once: the docstring under a class, a method or an attribute is its description in the schema."""

import ast
import functools
import inspect
import itertools
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final, TypeVar, dataclass_transform

import strawberry

T = TypeVar("T")

READS: Final = "reads"
"""The mark, in a field's metadata, of what it needs of the row behind its object."""

WITHIN: Final = "within"
"""The mark of the type that is made of what a field reads."""

PERSONAL: Final = "personal"
"""The mark, in a field's metadata, of what depends on the very person who asks, and not only on their rights."""


@dataclass_transform(kw_only_default=True, field_specifiers=(strawberry.field,))
def object_type(cls: type[T]) -> type[T]:
    """Make a class an object type of the schema."""
    return _described(strawberry.type(cls, description=words(cls)))


@dataclass_transform(kw_only_default=True, field_specifiers=(strawberry.field,))
def interface_type(cls: type[T]) -> type[T]:
    """Make a class an interface of the schema."""
    return _described(strawberry.interface(cls, description=words(cls)))


@dataclass_transform(kw_only_default=True, field_specifiers=(strawberry.field,))
def input_type(cls: type[T]) -> type[T]:
    """Make a class an input type of the schema."""
    return _described(strawberry.input(cls, description=words(cls)))


@dataclass_transform(kw_only_default=True, field_specifiers=(strawberry.field,))
def one_of(cls: type[T]) -> type[T]:
    """Make a class an input type of which exactly one field is given."""
    return _described(strawberry.input(cls, description=words(cls), one_of=True))


def field(resolver: Callable[..., T]) -> Any:  # noqa: ANN401  # stands for whatever the resolver gives
    """Make a method a field, described by its docstring."""
    return strawberry.field(resolver, description=words(resolver))


def reading(*keys: str, within: type | None = None) -> Callable[[Callable[..., T]], Any]:
    """Make a method a field that needs no more of its object's row than these keys, beside `_id`.

    `within`: the type made of what stands under the one key; of that, what is selected is needed alone.
    """
    metadata = {READS: keys, WITHIN: within}
    return lambda resolver: strawberry.field(resolver, description=words(resolver), metadata=metadata)


def personal(resolver: Callable[..., T]) -> Any:  # noqa: ANN401  # stands for whatever the resolver gives
    """Make a method a field whose value depends on the very person who asks: answers with it are shared with nobody."""
    return strawberry.field(resolver, description=words(resolver), metadata={PERSONAL: True})


def changes(values: object) -> dict[str, Any]:
    """Collect what an update input sets: absent fields are left out, an explicit null is None."""
    return {
        name: value.value
        for name in values.__dataclass_fields__  # type: ignore[attr-defined]  # every input is a dataclass
        if isinstance(value := getattr(values, name), strawberry.Some)
    }


def words(thing: object) -> str:
    """Read the docstring that serves as a description. Raises TypeError where there is none."""
    words = inspect.getdoc(thing)
    # A dataclass without a docstring is given its signature as one.
    name = getattr(thing, "__name__", "")
    if not words or words.startswith(f"{name}("):
        raise TypeError(f"{name} needs a docstring: it is its description in the schema.")
    return words


def _described(cls: type[T]) -> type[T]:
    words: dict[str, str] = {}
    for base in reversed(cls.__mro__):
        if hasattr(base, "__strawberry_definition__"):
            words |= attribute_docstrings(base)
    for item in cls.__strawberry_definition__.fields:  # type: ignore[attr-defined]  # Strawberry sets it on the class
        if item.description is None and (text := words.get(item.python_name)):
            item.description = text
    return cls


def attribute_docstrings(cls: type) -> Mapping[str, str]:
    """Read the string that stands under each annotated attribute of a class (the convention of PEP 258)."""
    body = _classes(inspect.getfile(cls))[cls.__qualname__].body
    return {
        statement.target.id: inspect.cleandoc(below.value.value)
        for statement, below in itertools.pairwise(body)
        if isinstance(statement, ast.AnnAssign)
        and isinstance(statement.target, ast.Name)
        and isinstance(below, ast.Expr)
        and isinstance(below.value, ast.Constant)
        and isinstance(below.value.value, str)
    }


# `inspect.getsource` parses a file once for each of its classes: a third of the time that a start takes.
@functools.cache
def _classes(path: str) -> Mapping[str, ast.ClassDef]:
    """Find the classes of a file by their qualified names."""
    tree = ast.parse(Path(path).read_text("utf-8"))
    waiting: list[tuple[str, ast.AST]] = [("", tree)]
    found: dict[str, ast.ClassDef] = {}
    while waiting:
        within, node = waiting.pop()
        for inner in getattr(node, "body", ()):
            if isinstance(inner, ast.ClassDef):
                found[within + inner.name] = inner
                waiting.append((f"{within}{inner.name}.", inner))
            elif isinstance(inner, ast.FunctionDef | ast.AsyncFunctionDef):
                waiting.append((f"{within}{inner.name}.<locals>.", inner))
    return found
