"""Root fields: who may use one stands beside it, is checked before it runs, and is written into its description."""

from collections.abc import Callable
from inspect import isawaitable
from typing import Any, TypeVar

import strawberry
from graphql import GraphQLField, GraphQLResolveInfo, get_named_type, is_input_object_type, is_leaf_type
from strawberry.extensions import FieldExtension
from strawberry.types import Info as StrawberryInfo
from strawberry.types.field import StrawberryField

from auth.permissions import Permission, readers
from graph.execution.cost import WEIGHT
from graph.execution.inputs import converter, spelled
from graph.language.describe import words
from graph.language.rows import selected
from graph.loaders import Loaders
from models.errors import Forbidden

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


def direct(field: GraphQLField, *, forgets: bool = False) -> None:
    """Have a root field check its permission, read its arguments and call its resolver, and nothing else.

    `forgets`: what was read before it ran is read anew after it, since it may have changed it.

    Strawberry's own way from field to resolver finds out at each call what the arguments' types are (measured: 45 us a
    request without input objects, 190 us an event of `collectUsage`).
    """
    definition = field.extensions.get("strawberry-definition")
    allow = permission(field)
    if not isinstance(definition, StrawberryField) or allow is None or len(definition.extensions) != 1:
        return
    resolver = definition.base_resolver
    if resolver is None or not resolver.is_async:
        return
    call: Any = resolver.wrapped_func
    arguments = [(spelled(each), each.python_name, converter(each.type)) for each in definition.arguments]
    wants_info = resolver.info_parameter is not None
    of_self = (None,) if resolver.self_parameter else ()

    async def resolve(_: object, raw: GraphQLResolveInfo[Any], **given: Any) -> Any:  # noqa: ANN401  # whatever is given
        allow.check(raw.context.viewer)
        named = {python: convert(given[name]) for name, python, convert in arguments if name in given}
        if wants_info:
            named["info"] = StrawberryInfo(_raw_info=raw, _field=definition)
        result = await call(*of_self, **named)
        if forgets:
            raw.context.loaders = Loaders()
        return result

    field.resolve = resolve


def direct_below(field: GraphQLField) -> None:
    """Have a field below the root that takes input objects read its arguments as `direct` does.

    Variables are objects already when it is called; Strawberry would read them as what JSON says of objects.
    """
    definition = field.extensions.get("strawberry-definition")
    takes_objects = any(is_input_object_type(get_named_type(each.type)) for each in field.args.values())
    if not takes_objects or not isinstance(definition, StrawberryField) or not definition.base_resolver:
        return
    resolver = definition.base_resolver
    call: Any = resolver.wrapped_func
    arguments = [(spelled(each), each.python_name, converter(each.type)) for each in definition.arguments]
    wants_info = resolver.info_parameter is not None

    def resolve(source: object, raw: GraphQLResolveInfo[Any], **given: Any) -> Any:  # noqa: ANN401  # whatever is given
        named = {python: convert(given[name]) for name, python, convert in arguments if name in given}
        if wants_info:
            named["info"] = StrawberryInfo(_raw_info=raw, _field=definition)
        return call(source, **named)

    field.resolve = resolve


def plain_unless_reader(info: StrawberryInfo, *path: str) -> None:
    """Refuse whoever may not read, when they ask for more than plain fields of what an answer has at `path`.

    For mutations of those who may report but not read: their answers would lead on to all that is stored. To be called
    before anything is changed. Raises `Forbidden`.
    """
    if readers.test(info.context.viewer):
        return
    kind: Any = get_named_type(info._raw_info.return_type)  # noqa: SLF001  # Strawberry shows it only as its own
    for name in path:
        kind = get_named_type(kind.fields[name].type)
    for name in sorted(selected(info, *path)):
        if name in kind.fields and not is_leaf_type(get_named_type(kind.fields[name].type)):
            raise Forbidden(f"Not allowed. `{name}` of what is answered is for those who may read: {readers.sentence}")


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
