"""JSON Schemas of payloads (Draft 2020-12): whether one is sound and stands alone, and whether a payload fits it."""

from collections.abc import Iterator
from typing import Any, Final

from jsonschema import Draft202012Validator
from jsonschema.exceptions import best_match
from referencing import Registry, Resource
from referencing.exceptions import Unresolvable
from referencing.jsonschema import DRAFT202012

from models.errors import Path

_DIALECT: Final = Draft202012Validator.META_SCHEMA["$id"]
# Formats are checked for the sake of one: what stands under `pattern` has to be a regular expression.
_META: Final = Draft202012Validator(
    Draft202012Validator.META_SCHEMA, format_checker=Draft202012Validator.FORMAT_CHECKER
)
# What stands under these is data, whatever it looks like.
_DATA: Final = frozenset({"const", "enum", "default", "examples"})
_REFERENCES: Final = ("$ref", "$dynamicRef")
_SAMPLES: Final[tuple[Any, ...]] = (None, True, 0, "", [], {})
_LONGEST: Final = 300
_ENDLESS: Final = "It refers to itself without end."


def faults(schema: Any) -> list[tuple[Path, str]]:  # noqa: ANN401  # any JSON
    """Find what is wrong with a schema: where in it, and what. A sound one holds all that it refers to."""
    if not isinstance(schema, dict | bool):
        return [((), "A JSON Schema is a mapping.")]
    if isinstance(schema, dict) and schema.get("$schema", _DIALECT) != _DIALECT:
        return [(("$schema",), f"Schemas are of Draft 2020-12: write {_DIALECT}, or leave it out.")]
    broken = [(tuple(error.absolute_path), _short(error.message)) for error in _META.iter_errors(schema)]
    if broken:
        return broken
    root = Resource.from_contents(schema, default_specification=DRAFT202012)
    for path, reference in _references(schema, ()):
        try:
            Registry().resolver_with_root(root).lookup(reference)
        except (Unresolvable, ValueError):
            broken.append((path, f"It refers to {_short(reference)}, which is not in it. Write it out under $defs."))
    if not broken and any(fault(schema, sample) == ((), _ENDLESS) for sample in _SAMPLES):
        broken.append(((), _ENDLESS))
    return broken


def fault(schema: Any, payload: Any) -> tuple[Path, str] | None:  # noqa: ANN401  # any JSON
    """Say where and why a payload does not fit a schema; None when it does."""
    # With a registry of its own: the default one would fetch what a schema names from the network.
    validator: Any = Draft202012Validator(schema, registry=Registry())
    try:
        error = best_match(validator.iter_errors(payload))
    except RecursionError:
        return (), _ENDLESS
    except (Unresolvable, ValueError):
        return (), "The schema refers to what is not in it."
    return (tuple(error.absolute_path), _short(error.message)) if error else None


def _references(part: Any, path: Path) -> Iterator[tuple[Path, str]]:  # noqa: ANN401  # any JSON
    if isinstance(part, dict):
        for key, value in part.items():
            if key in _REFERENCES and isinstance(value, str):
                yield (*path, key), value
            elif key not in _DATA:
                yield from _references(value, (*path, key))
    elif isinstance(part, list):
        for place, value in enumerate(part):
            yield from _references(value, (*path, place))


def _short(text: str) -> str:
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST]}…"
