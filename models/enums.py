"""DescribedEnum: a closed set whose every value carries the sentence that explains it."""

from enum import StrEnum
from typing import Self


class DescribedEnum(StrEnum):
    """An enum stored under its own name.

    Written `ACTIVE = "ACTIVE", "In use."`; the value equals the name, so that what is stored is what
    GraphQL answers, without a conversion per row.
    """

    description: str

    def __new__(cls, value: str, description: str) -> Self:
        member = str.__new__(cls, value)
        member._value_ = value
        member.description = description
        return member
