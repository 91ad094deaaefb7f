"""The schema: roots, scalars and rules put together."""

from typing import Any

import strawberry
from graphql import GraphQLError
from strawberry.schema.config import StrawberryConfig
from strawberry.types import ExecutionContext

from graph.execution.documents import Documents
from graph.language.scalars import SCALARS


class Schema(strawberry.Schema):
    """Strawberry's schema, silent about errors: the transports log them where they give them a code."""

    documents: Documents
    """The documents seen lately; the transports find theirs here."""

    def process_errors(self, errors: list[GraphQLError], execution_context: ExecutionContext | None = None) -> None:
        """Leave the errors to `graph/language/errors.py`."""


def build(query: type, mutation: type, subscription: type, *, introspection: bool = True) -> Schema:
    """Build the schema from its three roots."""
    documents = Documents(introspection=introspection)
    extensions: list[Any] = [documents.extension()]
    schema = Schema(
        query=query,
        mutation=mutation,
        subscription=subscription,
        extensions=extensions,
        config=StrawberryConfig(scalar_map=SCALARS, disable_field_suggestions=True),
    )
    schema.documents = documents
    return schema
