"""What text may be, and the check of given fields that names every fault at once."""

import re
import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from pydantic import BaseModel, GetCoreSchemaHandler, ValidationError
from pydantic_core import CoreSchema, PydanticCustomError, core_schema

from models.errors import BadInput, Fault

# Controls, the two line ends of Unicode, and lone surrogates, which UTF-8 and so BSON cannot hold. What joins, marks
# and turns letters (ZWJ, combining marks, right-to-left marks) is text like any other.
_UNFIT_LINE: Final = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")
_UNFIT_LINES: Final = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\ud800-\udfff]")


@dataclass(frozen=True, slots=True)
class Line:
    """One line of text, kept byte for byte but for the white space around it: `Annotated[str, Line(200)]`."""

    most: int
    least: int = 1

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:  # noqa: ANN401  # pydantic's signature
        """Tell pydantic how it is checked."""
        return core_schema.no_info_after_validator_function(
            lambda value: self._check(value, _UNFIT_LINE), core_schema.str_schema(strict=True)
        )

    def _check(self, value: str, unfit: re.Pattern[str]) -> str:
        if unfit.search(value):
            raise PydanticCustomError("characters", "No control characters and no broken Unicode, please.")
        value = value.strip()
        if len(value) < self.least or (self.least and is_blank(value)):
            raise PydanticCustomError("empty", "It cannot be empty.")
        if len(value) > self.most:
            raise PydanticCustomError("too_long", "At most {most} characters.", {"most": self.most})
        return value


@dataclass(frozen=True, slots=True)
class Lines(Line):
    """Text that may have line breaks and tabs."""

    least: int = 0

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:  # noqa: ANN401  # pydantic's signature
        """Tell pydantic how it is checked."""
        return core_schema.no_info_after_validator_function(
            lambda value: self._check(value.replace("\r\n", "\n"), _UNFIT_LINES), core_schema.str_schema(strict=True)
        )


def validate(
    model: type[BaseModel], values: Mapping[str, Any], *, partial: bool = True, faults: Sequence[Fault] = ()
) -> dict[str, Any]:
    """Check values against the fields of a model; `partial` asks for none that is not given.

    `faults` are those found already, to be told together with the others.
    Gives the values as stored. Raises `BadInput` with every fault, each with its path in snake_case.
    """
    found = list(faults)
    checked: dict[str, Any] = {}
    given = values if partial else {**dict.fromkeys(_required(model)), **values}
    blank = model.model_construct()
    for name, value in given.items():
        if value is None and name in _required(model):
            found.append(Fault((name,), "It is required.", "REQUIRED"))
            continue
        try:
            model.__pydantic_validator__.validate_assignment(blank, name, value)
        except ValidationError as error:
            found += [_fault(name, each) for each in error.errors(include_url=False)]
        else:
            checked[name] = getattr(blank, name)
    if found:
        raise BadInput(found)
    if not partial:
        for name, field in model.model_fields.items():
            checked.setdefault(name, field.get_default(call_default_factory=True))
    return checked


def fold(name: str) -> str:
    """Write a name as it is ordered: without regard to case and form."""
    return unicodedata.normalize("NFKC", name).casefold()


_WORD: Final = re.compile(r"[^\W_]+")
_LONGEST_WORD: Final = 50
_LONGEST_SEARCH: Final = 500


def words(*texts: str | None, most: int = 10) -> list[str]:
    """Cut texts into the words that a search finds them by: without case and without accents."""
    plain = (
        "".join(c for c in unicodedata.normalize("NFKD", each.casefold()) if not unicodedata.combining(c))
        for each in texts
        if each
    )
    return list(dict.fromkeys(word[:_LONGEST_WORD] for each in plain for word in _WORD.findall(each)))[:most]


def search(field: str, asked: str | None) -> Mapping[str, Any]:
    """Filter for documents that have, for each word asked for, one that begins like it: ranges of an index, no scan.

    Nothing asked for filters nothing; signs without any word in them find nothing.
    """
    if asked is None or not asked.strip():
        return {}
    # To take a long text apart may take seconds, and nobody searches by one.
    asked = asked.strip()[:_LONGEST_SEARCH]
    begun = [{field: {"$elemMatch": {"$gte": word, "$lt": word + "\U0010ffff"}}} for word in words(asked)]
    return {"$and": begun} if begun else {field: {"$in": []}}


def is_unfit(line: str) -> bool:
    """Whether a text holds what no line of text may: controls, line ends, broken Unicode."""
    return _UNFIT_LINE.search(line) is not None


def is_blank(line: str) -> bool:
    """Whether there is nothing to see in a text."""
    return not any(map(_is_seen, line))


def _is_seen(character: str) -> bool:
    return not character.isspace() and unicodedata.category(character) != "Cf"


def _required(model: type[BaseModel]) -> list[str]:
    return [name for name, field in model.model_fields.items() if field.is_required()]


def _fault(name: str, error: Any) -> Fault:  # noqa: ANN401  # pydantic's own record
    path = tuple(error["loc"]) if error["loc"] and error["loc"][0] == name else (name, *error["loc"])
    message = str(error["msg"]).removeprefix("Value error, ")
    return Fault(path, message, str(error["type"]).upper())
