"""One GraphQL request, whatever brought it: its parts checked, its operation chosen and run, its answer made."""

from collections.abc import AsyncGenerator, Callable, Coroutine, Hashable, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from inspect import isawaitable
from typing import Any, Final, cast

import orjson
import structlog
from graphql import (
    DocumentNode,
    ExecutionResult,
    FieldNode,
    FragmentDefinitionNode,
    FragmentSpreadNode,
    GraphQLError,
    InlineFragmentNode,
    OperationDefinitionNode,
    OperationType,
    create_source_event_stream,
    execute_subscription_event,
)
from prometheus_client import Counter, Histogram

from auth.permissions import Permission, collectors
from auth.viewer import Viewer, anybody_like
from graph.context import Context, Services
from graph.execution.cost import over
from graph.execution.executor import PlannedExecutor, Prepared
from graph.language.errors import BAD_INPUT, INTERNAL, mark, present
from graph.language.guards import permission
from graph.language.nodes import Node as GraphQLNode
from graph.loaders import Loaders
from graph.schema import Schema
from models.errors import BadInput, TooComplex
from models.store.database import Row
from models.store.live import Teller
from server.fanout import FanOut
from server.tracing import Tracing
from server.trusted import TrustedDocuments

Shown = dict[str, Any]
"""An error as a client reads it: `message`, `extensions.code`, and where it happened."""

log = structlog.get_logger()

_TIME: Final = Histogram(
    "agenthub_operation_seconds", "Time that queries and mutations take, by root field.", ["operation"]
)
_ERRORS: Final = Counter(
    "agenthub_operation_errors", "Answers with an error, by root field and code.", ["operation", "code"]
)
_UNFIT: Final = {
    "errors": [{"message": "The answer cannot be written as JSON.", "extensions": {"code": INTERNAL}}],
    "data": None,
}


class NotRunnable(Exception):
    """A document that cannot be run: what is wrong with it."""

    def __init__(self, errors: Sequence[GraphQLError]) -> None:
        super().__init__(errors[0].message)
        self.errors = errors


@dataclass(frozen=True, slots=True)
class Request:
    """The parts of a GraphQL request, each of the right shape."""

    query: str
    variables: dict[str, Any] | None
    operation_name: str | None


@dataclass(frozen=True, slots=True)
class Operation:
    """A sound document with the operation of it that is to run."""

    tree: DocumentNode
    prepared: Prepared
    kind: OperationType
    request: Request
    cost: int
    allow: Permission | None
    """Who may use the root field, where there is one alone."""
    label: str
    """The root field, where there is one alone: a name out of a bounded set."""


@dataclass(frozen=True, slots=True)
class Answer:
    """What came of a request; without `started` nothing was run, and the answer has no `data`."""

    errors: Sequence[Shown]
    data: Mapping[str, Any] | None = None
    started: bool = False
    extensions: Mapping[str, Any] | None = None
    wire: bytes | None = None
    """The body as JSON, where it has been written for several already."""

    @property
    def body(self) -> dict[str, Any]:
        """The answer in the shape that GraphQL gives it."""
        shape: dict[str, Any] = {"errors": self.errors} if self.errors else {}
        if self.started:
            shape["data"] = self.data
        if self.extensions:
            shape["extensions"] = self.extensions
        return shape

    @property
    def failure(self) -> str | None:
        """The code that all errors share, where nothing at all was gained; else None."""
        codes = {error["extensions"]["code"] for error in self.errors}
        gained = self.data is not None and any(value is not None for value in self.data.values())
        return codes.pop() if len(codes) == 1 and not gained else None


def encode(shape: object) -> bytes:
    """Write an answer as JSON; one that JSON cannot hold becomes an error, never an exception."""
    try:
        return orjson.dumps(shape)
    except TypeError:
        log.exception("an answer cannot be written as JSON")
        return orjson.dumps(_UNFIT)


def read(body: object, trusted: TrustedDocuments) -> Request:
    """Check the shape of a decoded request and find its document. Raises `BadInput`, and as `TrustedDocuments.find`."""
    if isinstance(body, list):
        raise BadInput.at("body", "Batches are not served: send one request at a time.")
    if not isinstance(body, dict):
        raise BadInput.at("body", 'A request is a JSON object like {"query": "{ __typename }"}.')
    variables = body.get("variables")
    name, extensions = body.get("operationName"), body.get("extensions")
    if extensions is not None and not isinstance(extensions, dict):
        raise BadInput.at("extensions", "`extensions` is an object.")
    if variables is not None and not isinstance(variables, dict):
        raise BadInput.at("variables", "`variables` is an object.")
    if name is not None and not isinstance(name, str):
        raise BadInput.at("operation_name", "`operationName` is a string.")
    query = trusted.find(body, body.get("query"))
    if not isinstance(query, str) or not query:
        raise BadInput.at("query", "`query` is missing: the document to run, as a string.")
    return Request(query, variables, name or None)


def shown(error: Exception, *, request_id: str) -> Shown:
    """Give any exception as a client may read it; logs what must be masked."""
    given = error if isinstance(error, GraphQLError) else GraphQLError(str(error), original_error=error)
    return present(given, request_id=request_id)


class Operations:
    """Runs requests against the schema.

    graphql-core is called directly, with the schema's executor: Strawberry's own `execute` walks its extensions, of
    which there are none but the document cache (measured: 62 us a request against 27).
    """

    def __init__(
        self,
        schema: Schema,
        services: Services,
        *,
        trusted: TrustedDocuments,
        tracing: Tracing,
        forget: Callable[[], None],
    ) -> None:
        """`forget` is called after whatever may have changed who somebody is, or what they may do."""
        self._schema = schema
        self._core = schema._schema  # noqa: SLF001  # Strawberry shows no public way to the schema it built
        self._services = services
        self._trusted = trusted
        self._forget = forget
        mutations = self._core.mutation_type
        fields = mutations.fields if mutations else {}
        self._reports = {name for name, field in fields.items() if permission(field) is collectors}
        self.tracing = tracing
        self._shared: FanOut[Answer] = FanOut()

    def read(self, body: object) -> Request:
        """Check the shape of a decoded request. Raises as the function `read`."""
        return read(body, self._trusted)

    def context(self, viewer: Viewer, *, request_id: str, address: str) -> Context:
        """Make the context of one execution."""
        return Context(self._services, datetime.now(UTC), request_id=request_id, address=address, viewer=viewer)

    def choose(self, request: Request) -> Operation:
        """Find the document and the operation to run. Raises `NotRunnable`."""
        document = self._schema.documents.find(request.query, self._core)
        if document.tree is None or document.errors:
            raise NotRunnable(document.errors)
        operations = [each for each in document.tree.definitions if isinstance(each, OperationDefinitionNode)]
        if request.operation_name is not None:
            operations = [each for each in operations if each.name and each.name.value == request.operation_name]
            if not operations:
                raise NotRunnable([mark(GraphQLError("The document has no operation of this name."), BAD_INPUT)])
        if len(operations) != 1:
            message = "The document has several operations: `operationName` must say which." if operations else "Empty."
            raise NotRunnable([mark(GraphQLError(message), BAD_INPUT)])
        prepared = document.prepare(self._core, operations[0])
        cost = prepared.weight.cost(request.variables or {})
        try:
            over("cost", cost, self._schema.limits.cost, "objects to fetch")
        except TooComplex as error:
            raise NotRunnable([GraphQLError(error.message, original_error=error)]) from None
        return Operation(
            document.tree,
            prepared,
            operations[0].operation,
            request,
            cost,
            allow=self._allow(document.tree, operations[0]),
            label=self._label(operations[0]),
        )

    def _label(self, operation: OperationDefinitionNode) -> str:
        selections = operation.selection_set.selections
        root = self._core.get_root_type(operation.operation)
        if len(selections) != 1 or not isinstance(selections[0], FieldNode) or root is None:
            return "several"
        name = selections[0].name.value
        return name if name in root.fields else "introspection"

    def _allow(self, tree: DocumentNode, operation: OperationDefinitionNode) -> Permission | None:
        """Find who may subscribe: a subscription has one root field, be it in a fragment."""
        root = self._core.get_root_type(operation.operation)
        if root is None or operation.operation is not OperationType.SUBSCRIPTION:
            return None
        fragments = {each.name.value: each for each in tree.definitions if isinstance(each, FragmentDefinitionNode)}
        node = operation.selection_set.selections[0]
        while isinstance(node, FragmentSpreadNode | InlineFragmentNode):
            within = fragments[node.name.value] if isinstance(node, FragmentSpreadNode) else node
            node = within.selection_set.selections[0]
        if not isinstance(node, FieldNode):
            return None
        return permission(root.fields[node.name.value]) if node.name.value in root.fields else None

    def cost_of(self, operation: Operation) -> Mapping[str, Any]:
        """Say what an operation costs, for an answer's `extensions`."""
        return {"cost": {"requested": operation.cost, "maximum": self._schema.limits.cost}}

    async def run(self, operation: Operation, context: Context) -> Answer:
        """Run a query or a mutation."""
        structlog.contextvars.bind_contextvars(operation=operation.label)
        with _TIME.labels(operation.label).time(), self.tracing.operation(operation.kind.value, operation.label):
            try:
                answer = await self._run(operation, context)
            finally:
                if operation.kind is OperationType.MUTATION and operation.label not in self._reports:
                    # Any of the others may have ended a session or a key, or changed what somebody may do.
                    self._forget()
        for code in {error["extensions"]["code"] for error in answer.errors}:
            _ERRORS.labels(operation.label, code).inc()
        return answer

    def _executor(self, operation: Operation, context: Context) -> PlannedExecutor | list[GraphQLError]:
        context.kept = operation.prepared.kept
        given = operation.request.variables or {}
        return PlannedExecutor.of(self._core, operation.prepared, given=given, context=context)

    async def _run(self, operation: Operation, context: Context) -> Answer:
        executor = self._executor(operation, context)
        if isinstance(executor, list):
            return _answer(ExecutionResult(None, executor), started=False, request_id=context.request_id)
        try:
            outcome = executor.execute_operation()
            # The operation is never run incrementally: the answer is one.
            result = cast("ExecutionResult", await outcome if isawaitable(outcome) else outcome)
        finally:
            executor.let_go()
        # Nothing was run when a variable cannot be read: such an error stands nowhere in the answer.
        started = result.data is not None or any(error.path for error in result.errors or ())
        return _answer(result, started=started, request_id=context.request_id)

    async def stream(
        self, operation: Operation, context: Context, *, tell: Callable[[Answer], bool] | None = None
    ) -> AsyncGenerator[Answer, None]:
        """Run any operation; a subscription gives an answer for each event, each with loaders and a `now` of its own.

        `tell` sends an answer at once, or says that it cannot; what it has sent is not given here.

        One answer that has not started is all that comes of a subscription that cannot begin. Raises what the source
        of the events raises.
        """
        if operation.kind is not OperationType.SUBSCRIPTION:
            yield await self.run(operation, context)
            return
        executor = self._executor(operation, context)
        if isinstance(executor, list):
            yield _answer(ExecutionResult(None, executor), started=False, request_id=context.request_id)
            return
        running, shared_by = executor, _shared_by(operation)

        def telling(of: Callable[[Row], object]) -> Teller:
            async def answer(row: Row) -> Answer:
                return await self._told(running, of(row), operation=operation, context=context, shared_by=shared_by)

            assert shared_by is not None  # noqa: S101  # tells the type checker
            return _Telling(operation, context, shared_by, answer=answer, tell=tell or (lambda _: False))

        context.telling = telling if tell and shared_by is not None else None
        source = create_source_event_stream(executor)
        if isawaitable(source):
            source = await source
        if isinstance(source, ExecutionResult):
            yield _answer(source, started=False, request_id=context.request_id)
            return

        # As graphql-core's `map_source_to_response_event` does, less an executor for each subscriber.
        async with aclosing(cast("AsyncGenerator[object, None]", source)) as events:
            async for event in events:
                yield await self._told(executor, event, operation=operation, context=context, shared_by=shared_by)

    async def _told(
        self,
        executor: PlannedExecutor,
        node: object,
        *,
        operation: Operation,
        context: Context,
        shared_by: Hashable | None,
    ) -> Answer:
        """Answer an event, once for all who would read the same."""
        viewer, sharing = context.viewer, operation.prepared.sharing
        if operation.allow:
            # The viewer's rights may have changed since this began.
            operation.allow.check(viewer)
        if not sharing.is_personal:
            viewer = anybody_like(viewer)

        async def make() -> Answer:
            event = cast("PlannedExecutor", executor.build_per_event_executor(node))
            event.context_value = replace(context, now=datetime.now(UTC), loaders=Loaders(), viewer=viewer)
            try:
                result = execute_subscription_event(event)
                if isawaitable(result):
                    result = await result
            finally:
                event.let_go()
            answer = _answer(result, started=True, request_id=context.request_id)
            return replace(answer, wire=encode(answer.body))

        # Of what is no node the type says what tells one event from another, if anything does.
        event = node.id if isinstance(node, GraphQLNode) else getattr(node, "event_key", None)
        if event is None or shared_by is None:
            return await make()
        return await self._shared.answer((event, _like(operation, context.viewer), shared_by), make)


def _like(operation: Operation, viewer: Viewer) -> Hashable:
    """Give what is the same for all who are shown the same."""
    return viewer.scope if operation.prepared.sharing.is_personal else (viewer.role, viewer.scopes, viewer.agent)


def _shared_by(operation: Operation) -> Hashable | None:
    """Give what tells the answers of two requests apart beside who asks; None where they cannot be compared."""
    request, depends = operation.request, operation.prepared.sharing.variables
    given = {name: value for name, value in (request.variables or {}).items() if name in depends}
    try:
        return orjson.dumps(given, option=orjson.OPT_SORT_KEYS), request.operation_name, request.query
    except TypeError:
        return None


@dataclass(frozen=True, slots=True)
class _Telling:
    """A subscription whose events can be sent as they come; see `models/store/live.py`."""

    operation: Operation
    context: Context
    shared_by: Hashable
    answer: Callable[[Row], Coroutine[Any, Any, Answer]]
    tell: Callable[[Answer], bool]

    def key(self) -> Hashable | None:
        viewer = self.context.viewer
        if self.operation.allow and not self.operation.allow.test(viewer):
            return None
        return _like(self.operation, viewer), self.shared_by


def _answer(result: ExecutionResult, *, started: bool, request_id: str) -> Answer:
    errors = [present(error, request_id=request_id) for error in result.errors or ()]
    return Answer(errors, result.data, started=started)
