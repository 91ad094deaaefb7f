"""A validator of JSON Schemas whose work is bounded: payloads come from agents, and one must not hold up all others.

Patterns are matched by an engine whose time grows with the text alone, where Python's may double with each sign; the
rest is counted in steps, and ends when there are too many.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from functools import lru_cache
from typing import Any, Final

import orjson
from jsonschema import Draft202012Validator, FormatChecker, validators
from jsonschema.exceptions import ValidationError
from pydantic_core import SchemaError, SchemaValidator, core_schema

MOST_STEPS: Final = 2_000_000
"""A step is a keyword that is applied, or an entry of one; following a reference takes as long as twenty."""
FORMATS: Final = FormatChecker(formats=())
"""Knows one format: that of regular expressions."""

_REFERENCE: Final = 20
_EXACT: Final = 2**53
_left: ContextVar[list[int]] = ContextVar("left")

Keyword = Callable[..., Iterator[ValidationError] | None]


class TooLong(Exception):
    """Checking takes more steps than there may be."""


@contextmanager
def bounded() -> Iterator[None]:
    """Let a validator take so many steps within the block. Raises `TooLong` when they are used up."""
    token = _left.set([MOST_STEPS])
    try:
        yield
    finally:
        _left.reset(token)


def mixes(part: Any) -> bool:  # noqa: ANN401  # any JSON
    """Whether it asks for what the package matches by itself, by Python's engine: names that no pattern has met."""
    text = orjson.dumps(part)
    return b'"unevaluatedProperties":' in text and b'"patternProperties":' in text


@lru_cache(maxsize=1000)
def _pattern(text: str) -> SchemaValidator:
    return SchemaValidator(core_schema.str_schema(pattern=text, regex_engine="rust-regex"))


@FORMATS.checks("regex", raises=SchemaError)
def _is_pattern(value: object) -> bool:
    return not isinstance(value, str) or _pattern(value) is not None


def _matches(pattern: str, text: str) -> bool:
    return _pattern(pattern).isinstance_python(text)


def _take(steps: int) -> None:
    left = _left.get()
    left[0] -= steps
    if left[0] < 0:
        raise TooLong


def _counted(name: str, keyword: Keyword) -> Keyword:
    itself = _REFERENCE if name in {"$ref", "$dynamicRef"} else 1

    # All keywords take a validator, their own value, what is checked, and the schema that they stand in.
    def check(validator: Any, value: Any, *about: Any) -> Iterator[ValidationError] | None:  # noqa: ANN401  # any JSON
        _take(itself + (len(value) if isinstance(value, list | dict) else 0))
        return keyword(validator, value, *about)

    return check


def _is_matched(_: Any, pattern: str, instance: Any, __: Any) -> Iterator[ValidationError]:  # noqa: ANN401  # any JSON
    if isinstance(instance, str) and not _matches(pattern, instance):
        yield ValidationError(f"{instance!r} does not match {pattern!r}")


def _matching(validator: Any, patterns: Any, instance: Any, _: Any) -> Iterator[ValidationError]:  # noqa: ANN401  # any JSON
    if isinstance(instance, dict):
        _take(len(patterns) * len(instance))
        for pattern, schema in patterns.items():
            for name, value in instance.items():
                if _matches(pattern, name):
                    yield from validator.descend(value, schema, path=name, schema_path=pattern)


def _additional(validator: Any, value: Any, *about: Any) -> Iterator[ValidationError]:  # noqa: ANN401  # any JSON
    instance, schema = about
    if isinstance(instance, dict):
        patterns, known = schema.get("patternProperties", ()), schema.get("properties", {})
        _take((1 + len(patterns)) * len(instance))
        met_by_none = {
            name: each for name, each in instance.items() if not any(_matches(pattern, name) for pattern in patterns)
        }
        yield from _ITS_OWN["additionalProperties"](validator, value, met_by_none, {"properties": known})


def _unique(_: Any, wanted: Any, instance: Any, __: Any) -> Iterator[ValidationError]:  # noqa: ANN401  # any JSON
    # The package compares each with each where items are lists or objects.
    if wanted and isinstance(instance, list) and len({_written(each) for each in instance}) < len(instance):
        yield ValidationError(f"{instance!r} has non-unique elements")


def _written(value: Any) -> bytes:  # noqa: ANN401  # any JSON
    return orjson.dumps(_plain(value), option=orjson.OPT_SORT_KEYS)


def _plain(value: Any) -> Any:  # noqa: ANN401  # any JSON
    """Write numbers that are equal in the same way."""
    if isinstance(value, dict):
        return {name: _plain(each) for name, each in value.items()}
    if isinstance(value, list):
        return [_plain(each) for each in value]
    if isinstance(value, float) and value.is_integer() and abs(value) < _EXACT:
        return int(value)
    return value


_ITS_OWN: Final[dict[str, Any]] = dict(Draft202012Validator.VALIDATORS)
_OURS: Final[dict[str, Keyword]] = {
    "pattern": _is_matched,
    "patternProperties": _matching,
    "additionalProperties": _additional,
    "uniqueItems": _unique,
}
Validator: Final[Any] = validators.extend(  # type: ignore[no-untyped-call]  # its stub names no types
    Draft202012Validator, {name: _counted(name, keyword) for name, keyword in {**_ITS_OWN, **_OURS}.items()}
)
"""Use it within `bounded`."""
