"""DateTime, Date, BigInt, Decimal, JSON: stricter than Strawberry's own, which let NaN and zoneless times through."""

import re
from datetime import UTC, date, datetime
from decimal import Decimal, InvalidOperation
from typing import Any, Final, NewType, cast

import strawberry
from strawberry.types.scalar import ScalarDefinition

from graph.language.errors import ScalarFault
from models.store.database import STORED_ZONE

BigInt = NewType("BigInt", int)
JSON = NewType("JSON", object)

LARGEST: Final = 2**53 - 1
_NANO: Final = 10**9
_DATE: Final = re.compile(r"\d{4}-\d{2}-\d{2}\Z", re.ASCII)
_DATETIME: Final = re.compile(
    r"\d{4}-\d{2}-\d{2}[Tt ]\d{2}:\d{2}(:\d{2}(\.\d{1,9})?)?([Zz]|[+-]\d{2}:\d{2})\Z", re.ASCII
)
# Those of them that Python reads as they are.
_PLAIN: Final = re.compile(r"\d{4}-\d{2}-\d{2}T\d{2}:\d{2}:\d{2}(\.(\d{3}|\d{6}))?(Z|[+-]\d{2}:\d{2})\Z", re.ASCII)
_DECIMAL: Final = re.compile(r"-?\d{1,18}(\.\d{1,18})?\Z", re.ASCII)


def _parse_datetime(value: object) -> datetime:
    text = value if isinstance(value, str) else ""
    if not _PLAIN.match(text):
        if not _DATETIME.match(text):
            raise ScalarFault("A DateTime is ISO 8601 with a zone, like 2026-05-01T09:30:00Z.")
        head, _, fraction = text.upper().replace(" ", "T").partition(".")
        # Python reads six digits of a second at most; a reporter with nanoseconds is no fault.
        digits = re.match(r"\d+", fraction)
        text = f"{head}.{digits[0][:6].ljust(6, '0')}{fraction[digits.end() :]}" if digits else head
    try:
        return datetime.fromisoformat(text).astimezone(UTC)
    except (ValueError, OverflowError):
        raise ScalarFault("This DateTime does not exist in the calendar from 0001 to 9999 UTC.") from None


def _serialize_datetime(value: datetime) -> str:
    if value.tzinfo is not UTC and value.tzinfo is not STORED_ZONE:
        value = value.astimezone(UTC)
    return f"{value.isoformat()[:-6]}Z"


def _parse_date(value: object) -> date:
    if not isinstance(value, str) or not _DATE.match(value):
        raise ScalarFault("A Date is written YYYY-MM-DD, like 2026-05-01.")
    try:
        return date.fromisoformat(value)
    except ValueError:
        raise ScalarFault("This Date does not exist in the calendar.") from None


def _parse_big_int(value: object) -> int:
    whole = isinstance(value, int) and not isinstance(value, bool)
    if isinstance(value, float) and value.is_integer() and abs(value) <= LARGEST:
        return int(value)
    if not whole:
        raise ScalarFault("A BigInt is a whole JSON number.")
    if abs(value) > LARGEST:  # type: ignore[arg-type]  # `whole` has told
        raise ScalarFault(f"A BigInt lies between -{LARGEST} and {LARGEST}.")
    return value  # type: ignore[return-value]  # `whole` has told


def _parse_decimal(value: object) -> Decimal:
    text = str(value) if isinstance(value, int) and not isinstance(value, bool) and abs(value) <= LARGEST else value
    if isinstance(text, float):
        number, text = text, repr(text)
        if "e" in text:
            text = f"{number:.18f}".rstrip("0").rstrip(".")
    if not isinstance(text, str) or not _DECIMAL.match(text):
        raise ScalarFault('A Decimal is written like "12.50": at most 18 digits on each side of the point.')
    try:
        return Decimal(text)
    except InvalidOperation:
        raise ScalarFault("This Decimal cannot be read.") from None


class _Usd(int):
    """Nanodollars on their way out, written as dollars: a decimal would take four times as long."""


def _serialize_decimal(value: Decimal | _Usd) -> str:
    if isinstance(value, _Usd):
        whole, part = divmod(abs(value), _NANO)
        text = f"{'-' if value < 0 else ''}{whole}.{part:09d}"
    else:
        text = f"{value:f}"
    return text.rstrip("0").rstrip(".") if "." in text else text


SCALARS: Final[dict[object, ScalarDefinition]] = {
    datetime: strawberry.scalar(
        name="DateTime",
        description="A moment, ISO 8601 with a zone on the way in (`2026-05-01T09:30:00+02:00`), UTC on the way out.",
        specified_by_url="https://scalars.graphql.org/andimarek/date-time",
        serialize=_serialize_datetime,
        parse_value=_parse_datetime,
    ),
    date: strawberry.scalar(
        name="Date",
        description="A calendar day, `YYYY-MM-DD`, in the company's time zone.",
        serialize=date.isoformat,
        parse_value=_parse_date,
    ),
    BigInt: strawberry.scalar(
        name="BigInt",
        description="A whole number, written as a JSON number, exact up to 2^53-1 and refused beyond.",
        serialize=int,
        parse_value=_parse_big_int,
    ),
    Decimal: strawberry.scalar(
        name="Decimal",
        description='A decimal number as a string, like `"12.50"`, so that no digit is lost. A number is read too.',
        serialize=_serialize_decimal,
        parse_value=_parse_decimal,
    ),
    JSON: strawberry.scalar(
        name="JSON",
        description="Any JSON value.",
        specified_by_url="https://ecma-international.org/publications-and-standards/standards/ecma-404/",
        serialize=lambda value: value,
        parse_value=lambda value: value,
    ),
}


def as_usd(nanodollars: int) -> Decimal:
    """Give stored nanodollars as US dollars, exactly; to be written, not to be calculated with."""
    return cast("Decimal", _Usd(nanodollars))


def as_any(value: Any) -> JSON:  # noqa: ANN401  # JSON is any value by definition
    """Mark a value as JSON for the type checker."""
    return JSON(value)
