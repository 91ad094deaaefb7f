"""Root fields: who may use one stands beside it, is checked before it runs, and is written into its description."""

from collections.abc import Callable
from inspect import isawaitable
from typing import Any, TypeVar

import strawberry
from graphql import GraphQLField
from strawberry.extensions import FieldExtension
from strawberry.types import Info as StrawberryInfo

from auth.permissions import Permission
from graph.execution.cost import WEIGHT
from graph.language.describe import words

R = TypeVar("R", bound=Callable[..., Any])


class Allow(FieldExtension):
    """Checks the viewer before the resolver runs."""

    def __init__(self, permission: Permission) -> None:
        self.permission = permission

    def resolve(self, next_: Callable[..., Any], source: object, info: StrawberryInfo, **arguments: object) -> object:
        """Check, then run."""
        self.permission.check(info.context.viewer)
        return next_(source, info, **arguments)

    async def resolve_async(
        self, next_: Callable[..., Any], source: object, info: StrawberryInfo, **arguments: object
    ) -> object:
        """Check, then run. A subscription's events are not awaited here: Strawberry counts their generator as async."""
        self.permission.check(info.context.viewer)
        result = next_(source, info, **arguments)
        return await result if isawaitable(result) else result


def permission(field: GraphQLField) -> Permission | None:
    """Find who may use a root field; None for one that is not made here."""
    definition = field.extensions.get("strawberry-definition")
    found = [each.permission for each in getattr(definition, "extensions", ()) if isinstance(each, Allow)]
    return found[0] if found else None


def query(*, allow: Permission, weight: int = 0) -> Callable[[R], Any]:
    """Make a resolver a field of Query; `weight`: as many objects as it costs to find, beside those it gives."""
    return lambda resolver: strawberry.field(
        resolver,
        description=_with_permission(resolver, allow),
        extensions=[Allow(allow)],
        metadata={WEIGHT: weight},
    )


def mutation(*, allow: Permission) -> Callable[[R], Any]:
    """Make a resolver a field of Mutation."""
    return lambda resolver: strawberry.mutation(
        resolver, description=_with_permission(resolver, allow), extensions=[Allow(allow)]
    )


def subscription(*, allow: Permission) -> Callable[[R], Any]:
    """Make an async generator a field of Subscription."""
    return lambda resolver: strawberry.subscription(
        resolver, description=_with_permission(resolver, allow), extensions=[Allow(allow)]
    )


def _with_permission(resolver: Callable[..., Any], allow: Permission) -> str:
    return f"{words(resolver)}\n\n{allow.sentence}"
