"""Runs operations: root fields as graphql-core does, what lies below them by generated code, a level at a time."""

import asyncio
from collections.abc import Callable, Coroutine, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, TypeAlias

from graphql import (
    FragmentDefinitionNode,
    GraphQLError,
    GraphQLObjectType,
    GraphQLOutputType,
    GraphQLSchema,
    OperationDefinitionNode,
    OperationType,
    default_field_resolver,
    default_type_resolver,
)
from graphql.execution.collect_fields import FieldDetails, FragmentDetails
from graphql.execution.values import get_variable_values
from strawberry.execution import optimized_is_awaitable
from strawberry.schema.schema import StrawberryGraphQLCoreExecutionContext

from graph.execution.batches import Batch
from graph.execution.cost import Weight
from graph.execution.inputs import Variables
from graph.execution.plan import Holders, Later, Read, Surprise, Unplanned, plan
from graph.execution.sharing import Sharing

Plans: TypeAlias = dict[object, dict[object, Read | None]]
"""The functions of one operation, by selection and case; None for a selection that graphql-core is left with."""

_MOST_ERRORS: Final = 50
# A case is a set of values of the variables of `@skip` and `@include`. A function takes a hundred times the room of its
# document's text, and anybody may send any values.
_MOST_CASES: Final = 4


@dataclass(frozen=True, slots=True)
class Prepared:
    """What can be known of an operation once for all its requests."""

    node: OperationDefinitionNode
    definitions: dict[str, FragmentDefinitionNode]
    variables: Variables
    conditions: Sequence[str]
    """The variables on which `@skip` and `@include` depend."""
    weight: Weight
    sharing: Sharing
    plans: Plans = field(default_factory=dict)
    kept: dict[Any, Any] = field(default_factory=dict)
    """What others work out once."""


class PlannedExecutor(StrawberryGraphQLCoreExecutionContext):
    """graphql-core's executor, which hands objects and lists of objects to generated functions.

    Whatever these cannot vouch for, a null where none may be, a value of another type, an error of a resolver, is
    completed once more by graphql-core itself: errors and nulls are the specification's. Resolvers below the root
    only read, so asking twice changes nothing, and what was loaded is not loaded again.
    """

    @classmethod
    def of(
        cls, schema: GraphQLSchema, prepared: Prepared, *, given: Mapping[str, Any], context: object
    ) -> "PlannedExecutor | list[GraphQLError]":
        """Make the executor of one execution, or say what is wrong with the values `given` to its variables.

        It is what graphql-core's `build` makes, less what is known of the operation already.
        """
        operation = prepared.node
        # Strawberry reads the arguments of subscriptions, and knows nothing of input objects that are made already.
        is_ours = operation.operation is not OperationType.SUBSCRIPTION
        values = prepared.variables.read(given) if is_ours else None
        if values is None:
            found = get_variable_values(
                schema, operation.variable_definitions or (), dict(given), max_errors=_MOST_ERRORS
            )
            if isinstance(found, list):
                return found
            values = found
        return cls(
            schema,
            prepared.definitions,
            {name: FragmentDetails(each) for name, each in prepared.definitions.items()},
            None,
            context,
            operation,
            values,
            default_field_resolver,
            default_type_resolver,
            default_field_resolver,
            is_awaitable=optimized_is_awaitable,
            plans=prepared.plans,
            conditions=prepared.conditions,
        )

    def __init__(
        self,
        *args: Any,  # noqa: ANN401  # graphql-core's own
        plans: Plans | None = None,
        conditions: Sequence[str] = (),
        **kwargs: Any,  # noqa: ANN401  # graphql-core's own
    ) -> None:
        """`plans` are the document's, which keeps them; `conditions` are the variables that decide about selections."""
        super().__init__(*args, **kwargs)
        self._plans = {} if plans is None else plans
        values = self.variable_values.coerced
        self._case = tuple(values.get(name) for name in conditions)
        self.surprised = False

    def let_go(self) -> None:
        """Hold nothing any more, once the operation is done.

        graphql-core's executor is part of a circle, so that all that a request has read would wait for the collector
        of cycles (measured: an eighth of the CPU of a nested list).
        """
        del self.async_helpers

    def complete_object_value(
        self,
        return_type: GraphQLObjectType,
        field_details_list: list[FieldDetails],
        *rest: Any,  # noqa: ANN401  # passed through
    ) -> Any:  # noqa: ANN401  # as graphql-core has it
        """Complete an object."""
        read = self._read(return_type, field_details_list)
        if read is None:
            return super().complete_object_value(return_type, field_details_list, *rest)
        _info, _path, result, _context = rest

        def otherwise() -> Any:  # noqa: ANN401  # as graphql-core has it
            return super(PlannedExecutor, self).complete_object_value(return_type, field_details_list, *rest)

        return self._complete(read, [result], lambda values: values[0], otherwise)

    def complete_list_value(
        self,
        return_type: Any,  # noqa: ANN401  # a list of a wrapped type
        field_details_list: list[FieldDetails],
        *rest: Any,  # noqa: ANN401  # passed through
    ) -> Any:  # noqa: ANN401  # as graphql-core has it
        """Complete a list."""
        _info, _path, result, _context = rest
        read = self._read(return_type.of_type, field_details_list) if isinstance(result, list) else None
        if read is None:
            return super().complete_list_value(return_type, field_details_list, *rest)

        def otherwise() -> Any:  # noqa: ANN401  # as graphql-core has it
            return super(PlannedExecutor, self).complete_list_value(return_type, field_details_list, *rest)

        return self._complete(read, result, lambda values: values, otherwise)

    def _read(self, kind: GraphQLOutputType, details: list[FieldDetails]) -> Read | None:
        if self.surprised:
            return None
        # The document keeps its nodes, and the schema its types: neither gives its id away.
        cases = self._plans.setdefault((id(kind), *(id(each.node) for each in details)), {})
        try:
            return cases[self._case]
        except KeyError:
            pass
        try:
            read = plan(self, kind, details)
        except (Unplanned, GraphQLError):
            read = None
        if len(cases) >= _MOST_CASES:
            del cases[next(iter(cases))]
        cases[self._case] = read
        return read

    def _complete(
        self,
        read: Read,
        values: Sequence[Any],
        shape: Callable[[list[Any]], Any],
        otherwise: Callable[[], Any],
    ) -> Any:  # noqa: ANN401  # as graphql-core has it
        levels = _Levels(self)
        try:
            answers = read(values, levels.note)
        except Exception:  # noqa: BLE001  # graphql-core finds out what it was, and says so where it belongs
            self.surprised = True
            return otherwise()
        if not levels.open:
            return shape(answers)
        return self._settled(levels, lambda: shape(answers), otherwise)

    async def _settled(self, levels: "_Levels", done: Callable[[], Any], otherwise: Callable[[], Any]) -> Any:  # noqa: ANN401
        try:
            await levels.settle()
        except Exception:  # noqa: BLE001  # graphql-core finds out what it was, and says so where it belongs
            self.surprised = True
            result = otherwise()
            return await result if self.is_awaitable(result) else result
        return done()


class _Levels:
    """The fields of one level that are to be resolved, then those of the next."""

    def __init__(self, executor: PlannedExecutor) -> None:
        self._executor = executor
        self.open: dict[Later, Holders] = {}

    def note(self, later: Later) -> Holders:
        """Give the lists in which a field's objects are noted."""
        holders = self.open.get(later)
        if holders is None:
            holders = self.open[later] = ([], [])
        return holders

    async def settle(self) -> None:
        """Resolve level after level."""
        while self.open:
            level, self.open = self.open, {}
            answers = await self._ask(level)
            for (later, (_, holders)), values in zip(level.items(), answers, strict=True):
                for holder, value in zip(holders, later.read(values, self.note), strict=True):
                    holder[later.name] = value

    async def _ask(self, level: dict[Later, Holders]) -> list[list[Any]]:
        answers: list[list[Any]] = []
        by_hand: list[_Asked] = []
        tasks: list[tuple[list[Any], int, asyncio.Task[Any]]] = []
        try:
            for later, (parents, _) in level.items():
                ask = later.bind(self._executor) if parents else None
                values = [ask(parent) for parent in parents] if ask else []
                answers.append(values)
                if not later.is_async:
                    continue
                if later.in_tasks or len(parents) == 1:
                    tasks += [(values, place, asyncio.create_task(each)) for place, each in enumerate(values)]
                else:
                    by_hand += [(values, place, each, later) for place, each in enumerate(values)]
            await _drive(by_hand)
            for values, place, task in tasks:
                values[place] = await task
        finally:
            # Nothing is left to do here unless something failed.
            for _, _, started, _ in by_hand:
                started.close()
            for _, _, task in tasks:
                task.cancel()
        return answers


_Asked: TypeAlias = tuple[list[Any], int, Coroutine[Any, Any, Any], Later]
"""A resolver's coroutine, and where its answer goes."""


async def _drive(asked: list[_Asked]) -> None:
    """Run the coroutines of many objects side by side, without a task for each: all ask a loader and await a `Batch`.

    Raises `Surprise` for a resolver that waits for anything else; it is run in tasks from then on.
    """
    while asked:
        batches: set[Batch] = set()
        waiting: list[_Asked] = []
        for each in asked:
            values, place, started, later = each
            try:
                awaited = started.send(None)
            except StopIteration as stop:
                values[place] = stop.value
                continue
            if not isinstance(awaited, Batch):
                later.in_tasks = True
                raise Surprise
            # What an event loop does when it takes a future from a coroutine; it may then be awaited again.
            awaited._asyncio_future_blocking = False  # noqa: SLF001  # asyncio's own protocol
            batches.add(awaited)
            waiting.append(each)
        asked = waiting
        for batch in batches:
            await batch
