"""JSON Schemas of payloads (Draft 2020-12): whether one is sound and stands alone, and whether a payload fits it."""

from collections.abc import Iterator
from typing import Any, Final

from jsonschema import Draft202012Validator
from jsonschema.exceptions import best_match
from pydantic_core import SchemaError
from referencing import Registry, Resource
from referencing.exceptions import Unresolvable
from referencing.jsonschema import DRAFT202012

from models import checking
from models.errors import Path

_DIALECT: Final = Draft202012Validator.META_SCHEMA["$id"]
# Formats are checked for the sake of one: what stands under `pattern` has to be a regular expression.
_META: Final = Draft202012Validator(Draft202012Validator.META_SCHEMA, format_checker=checking.FORMATS)
# What stands under these is data, whatever it looks like.
_DATA: Final = frozenset({"const", "enum", "default", "examples"})
_REFERENCES: Final = ("$ref", "$dynamicRef")
_WORDS: Final = (*_REFERENCES, "$schema")
_SAMPLES: Final[tuple[Any, ...]] = (None, True, 0, "", [], {})
_LONGEST: Final = 300
_ENDLESS: Final = "It refers to itself without end."
_TOO_LONG: Final = (
    f"It takes more than {checking.MOST_STEPS:,} steps to check. Send less, or have the schema simplified."
)
_NO_PATTERN: Final = "is no regular expression that is read here, where none has look-around or back-references."


def faults(schema: Any) -> list[tuple[Path, str]]:  # noqa: ANN401  # any JSON
    """Find what is wrong with a schema: where in it, and what. A sound one holds all that it refers to."""
    if not isinstance(schema, dict | bool):
        return [((), "A JSON Schema is a mapping.")]
    if isinstance(schema, dict) and schema.get("$schema", _DIALECT) != _DIALECT:
        return [(("$schema",), f"Schemas are of Draft 2020-12: write {_DIALECT}, or leave it out.")]
    broken = list(_unsound(schema))
    if broken:
        return broken
    root = Resource.from_contents(schema, default_specification=DRAFT202012)
    for path, key, said in _words(schema, ()):
        if key in _REFERENCES:
            broken += ((path, message) for message in _misled(root, said))
        elif path != ("$schema",):
            broken.append((path, "Only the top of a schema says its draft."))
    if broken:
        return broken
    met = (fault(schema, sample) for sample in _SAMPLES)
    endless = next((each[1] for each in met if each and each[1] in {_ENDLESS, _TOO_LONG}), None)
    return [((), endless)] if endless else []


def fault(schema: Any, payload: Any) -> tuple[Path, str] | None:  # noqa: ANN401  # any JSON
    """Say where and why a payload does not fit a schema; None when it does."""
    # With a registry of its own: the default one would fetch what a schema names from the network.
    validator: Any = checking.Validator(_without_draft(schema), registry=Registry())
    try:
        with checking.bounded():
            error = best_match(validator.iter_errors(payload))
    except RecursionError:
        return (), _ENDLESS
    except checking.TooLong:
        return (), _TOO_LONG
    except (Unresolvable, ValueError, SchemaError):
        return (), "The schema is not sound: have the organism's file mended and applied again."
    return (tuple(error.absolute_path), _short(error.message)) if error else None


def _unsound(schema: Any) -> Iterator[tuple[Path, str]]:  # noqa: ANN401  # any JSON
    for error in _META.iter_errors(schema):
        message = f"{error.instance!r} {_NO_PATTERN}" if error.validator == "format" else error.message
        yield tuple(error.absolute_path), _short(message)
    if isinstance(schema, dict) and checking.mixes(schema):
        yield (), "Write out what stands under patternProperties: with unevaluatedProperties it is not read."


def _misled(root: Any, reference: str) -> Iterator[str]:  # noqa: ANN401  # its own package's type is generic
    try:
        found = Registry().resolver_with_root(root).lookup(reference).contents
    except (Unresolvable, ValueError):
        yield f"It refers to {_short(reference)}, which is not in it. Write it out under $defs."
        return
    # Under a key that is none of a schema's anything may stand.
    if any(True for _ in _unsound(found)):
        yield f"It refers to {_short(reference)}, which is no sound schema."


def _without_draft(schema: Any) -> Any:  # noqa: ANN401  # any JSON
    # By it the package would take a validator of its own, which knows no bounds.
    return {key: value for key, value in schema.items() if key != "$schema"} if isinstance(schema, dict) else schema


def _words(part: Any, path: Path) -> Iterator[tuple[Path, str, str]]:  # noqa: ANN401  # any JSON
    """Find what refers to a schema, and what says its draft: where, the key, and what stands there."""
    if isinstance(part, dict):
        for key, value in part.items():
            if key in _WORDS and isinstance(value, str):
                yield (*path, key), key, value
            elif key not in _DATA:
                yield from _words(value, (*path, key))
    elif isinstance(part, list):
        for place, value in enumerate(part):
            yield from _words(value, (*path, place))


def _short(text: str) -> str:
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST]}…"
