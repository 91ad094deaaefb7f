"""Enums of `models`, shown to clients with the sentence that each value carries."""

from typing import TypeVar

import strawberry

from models.enums import DescribedEnum

E = TypeVar("E", bound=type[DescribedEnum])


def expose(enum: E) -> E:
    """Give an enum to the schema: its docstring and its values' sentences become the descriptions."""
    exposed = strawberry.enum(enum, description=enum.__doc__)
    definition = exposed.__strawberry_definition__  # type: ignore[attr-defined]  # Strawberry sets it on the class
    for value, member in zip(definition.values, enum, strict=True):
        value.description = member.description
    return exposed
