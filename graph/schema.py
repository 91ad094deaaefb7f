"""The schema: roots, scalars and rules put together."""

from typing import Any

import strawberry
from graphql import GraphQLError, is_object_type
from strawberry.schema.config import StrawberryConfig
from strawberry.types import ExecutionContext

from graph.execution.cost import DEFAULT, Limits
from graph.execution.documents import Documents
from graph.execution.executor import PlannedExecutor
from graph.language.guards import direct, direct_below
from graph.language.scalars import SCALARS

Roots = tuple[type, type, type]
"""Query, Mutation and Subscription."""


class Schema(strawberry.Schema):
    """Strawberry's schema, silent about errors: the transports log them where they give them a code."""

    documents: Documents
    """The documents seen lately; the transports find theirs here."""
    limits: Limits
    """The most that one operation may ask for."""

    def process_errors(self, errors: list[GraphQLError], execution_context: ExecutionContext | None = None) -> None:
        """Leave the errors to `graph/language/errors.py`."""


def build(roots: Roots, *, introspection: bool = True, limits: Limits = DEFAULT) -> Schema:
    """Build the schema from its three roots."""
    query, mutation, subscription = roots
    documents = Documents(introspection=introspection, limits=limits)
    extensions: list[Any] = [documents.extension()]
    schema = Schema(
        query=query,
        mutation=mutation,
        subscription=subscription,
        extensions=extensions,
        execution_context_class=PlannedExecutor,
        config=StrawberryConfig(scalar_map=SCALARS, disable_field_suggestions=True),
    )
    schema.documents, schema.limits = documents, limits
    core = schema._schema  # noqa: SLF001  # Strawberry shows no public way to the schema it built
    for root in (core.query_type, core.mutation_type):
        for field in root.fields.values() if root else ():
            direct(field, forgets=root is core.mutation_type)
    for kind in core.type_map.values():
        if is_object_type(kind) and kind not in {core.query_type, core.mutation_type, core.subscription_type}:
            for field in kind.fields.values():
                direct_below(field)
    return schema
