"""Agents as a spreadsheet: columns and cells, written so that no program runs them, and read back as they were."""

import csv
import io
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from typing import Any, Final

from models.errors import BadInput
from models.store.database import Row, global_id

MOST_ROWS: Final = 10_000

# What a spreadsheet takes for the beginning of a formula, the wide forms of East Asian keyboards too.
_RUNS: Final = frozenset("=+-@\t\r\n＝＋－＠")
_GUARD: Final = "'"
_NUMBER: Final = re.compile(r"[+-]?\d+(\.\d+)?\Z", re.ASCII)
_DELIMITERS: Final = ",;\t"


@dataclass(frozen=True, slots=True)
class Line:
    """One row of a sheet: its number as a spreadsheet shows it, and its cells by field."""

    number: int
    cells: Mapping[str, str]
    surplus: bool = False


# ---------------------------------------------------------------- cells


def guard(cell: str) -> str:
    """Write text so that a spreadsheet shows it and does not run it; a number stays one."""
    if (cell[:1] in _RUNS and cell and not _NUMBER.match(cell)) or _is_guarded(cell):
        return _GUARD + cell
    return cell


def unguard(cell: str) -> str:
    """Give the text that `guard` was given."""
    return cell[1:] if _is_guarded(cell) else cell


def _is_guarded(cell: str) -> bool:
    return len(cell) > 1 and cell[0] == _GUARD and (cell[1] in _RUNS or cell[1] == _GUARD)


def join(words: Sequence[str]) -> str:
    """Write several words into one cell: a line of CSV of its own, so that a word may hold a comma."""
    written = io.StringIO()
    csv.writer(written, lineterminator="").writerow(words)
    return written.getvalue()


def split(cell: str) -> list[str]:
    """Read the words of a cell. Raises `ValueError` for broken quotes."""
    try:
        rows = list(csv.reader([cell], skipinitialspace=True, strict=True))
    except csv.Error as error:
        raise ValueError(f"It cannot be read as a list: {error}.") from None
    return [word.strip() for row in rows for word in row if word.strip()]


# ---------------------------------------------------------------- columns


def _plain(name: str) -> Callable[[Row], object]:
    return lambda row: row[name]


def _of(part: str, name: str) -> Callable[[Row], object]:
    return lambda row: row[part].get(name)


# What can be imported; the owner stands for an account by its e-mail.
FIELDS: Final[Mapping[str, str]] = {
    "name": "name",
    "description": "description",
    "project": "project",
    "discipline": "discipline",
    "status": "status",
    "auditStatus": "audit_status",
    "tags": "tags",
    "userbase": "userbase",
    "department": "department",
    "contactPerson": "contact_person",
    "owner": "owner",
}
# What counting and rating keep; passed over on import.
FIGURES: Final[Mapping[str, Callable[[Row], object]]] = {
    "id": lambda row: global_id("Agent", row["_id"]),
    "ratingAverage": _of("rating", "average"),
    "ratingCount": _of("rating", "count"),
    "messages": _of("usage", "messages"),
    "conversations": _of("usage", "conversations"),
    "users": _of("usage", "users"),
    "requests": _of("usage", "requests"),
    "promptTokens": _of("usage", "prompt_tokens"),
    "completionTokens": _of("usage", "completion_tokens"),
    "totalTokens": _of("usage", "total_tokens"),
    "cost": lambda row: Decimal(row["usage"]["cost_nanodollars"]).scaleb(-9),
    "firstUsedAt": _of("usage", "first_used_at"),
    "lastUsedAt": _of("usage", "last_used_at"),
    "createdAt": _plain("created_at"),
    "updatedAt": _plain("updated_at"),
}


def header() -> list[str]:
    """Give the names of the columns, as GraphQL has them."""
    return [*FIELDS, *FIGURES]


def cells(row: Row, *, owner: str | None) -> list[str]:
    """Write an agent as a line under `header`; `owner` is their e-mail."""
    said = {**row, "tags": join(row["tags"]), "owner": owner}
    return [guard(_text(said[field])) for field in FIELDS.values()] + [_text(read(row)) for read in FIGURES.values()]


def _text(value: Any) -> str:  # noqa: ANN401  # whatever is stored
    if value is None:
        return ""
    if isinstance(value, datetime):
        return value.isoformat().replace("+00:00", "Z")
    return f"{value:f}" if isinstance(value, Decimal) else str(value)


# ---------------------------------------------------------------- reading


def read(text: str) -> Iterator[Line]:
    """Read a sheet: with commas, semicolons or tabs, with or without a byte order mark, with any line ends.

    Empty lines are passed over. Raises `BadInput` with the row for what is no CSV, and for unknown, repeated or missing
    columns; a name of a column may be written with spaces and in any case.
    """
    text = text.removeprefix("\ufeff")
    delimiter = _delimiter(text)
    rows = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
    number = 0
    fields: list[str | None] | None = None
    try:
        for number, row in enumerate(rows, start=1):
            if not any(cell.strip() for cell in row):
                continue
            if fields is None:
                fields = _fields(row)
                continue
            known = {field: unguard(_lines(cell)) for field, cell in zip(fields, row, strict=False) if field}
            yield Line(number, known, surplus=any(cell.strip() for cell in row[len(fields) :]))
    except csv.Error as error:
        raise BadInput.at("csv", f"Row {number + 1} cannot be read: {error}.") from None
    if fields is None:
        raise BadInput.at("csv", "There is no header. The first line names the columns, `name` among them.")


def _lines(cell: str) -> str:
    return cell.replace("\r\n", "\n").replace("\r", "\n")


def _delimiter(text: str) -> str:
    first = next((line for line in text.splitlines() if line.strip()), "")
    return max(_DELIMITERS, key=lambda each: (first.count(each), -_DELIMITERS.index(each)))


def _fields(row: Sequence[str]) -> list[str | None]:
    known = {_folded(name): field for name, field in FIELDS.items()}
    ignored = {_folded(name) for name in FIGURES}
    fields: list[str | None] = []
    for place, cell in enumerate(row, start=1):
        name = _folded(cell)
        if name in known:
            if known[name] in fields:
                raise BadInput.at("csv", f"Row 1, column {place}: “{cell}” stands there twice.")
            fields.append(known[name])
        elif name in ignored or not name:
            fields.append(None)
        else:
            raise BadInput.at(
                "csv", f"Row 1, column {place}: there is no column “{cell[:100]}”. There are: {', '.join(FIELDS)}."
            )
    if "name" not in fields:
        raise BadInput.at("csv", "Row 1: the column `name` is missing.")
    return fields


def _folded(name: str) -> str:
    return re.sub(r"[\s_-]", "", name).casefold()
