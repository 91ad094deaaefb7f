"""GraphQL over HTTP, to the letter: media types, methods, status codes; and every failure in GraphQL's own shape."""

import asyncio
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Final
from urllib.parse import parse_qsl

import orjson
import structlog
from graphql import OperationType
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from graph.context import Context
from graph.language.errors import BAD_INPUT
from models.errors import AgentHubError, BadInput, Conflict, Forbidden, RateLimited, ServiceUnavailable, Unauthenticated
from server import credentials, idempotency, operations, sse
from server.credentials import Door
from server.negotiation import EVENT_STREAM, GRAPHQL, HTML, JSON, is_json, preferred
from server.operations import Answer, NotRunnable, Operation, Operations, Shown, encode
from server.sse import EventStreams

# A body has this long to arrive, and a second more for each so many bytes that came: who sends a byte now and then is
# cut soon, who sends much over a slow line is not.
_BODY_S: Final = 1.5
_BODY_BYTES_PER_S: Final = 1000
_LONGEST_BODY_S: Final = 60.0
_LONGEST_QUERY_STRING: Final = 16_000
_MOST_PARAMETERS: Final = 20
_COST: Final = "graphql-cost"
_READING: Final = frozenset({"GET", "HEAD"})
_ALLOWED: Final = "GET, HEAD, POST"
_STATUS: Final[Mapping[str, int]] = {
    Unauthenticated.code: 401,
    Forbidden.code: 403,
    Conflict.code: 409,
    RateLimited.code: 429,
    ServiceUnavailable.code: 503,
    AgentHubError.code: 500,
}
_HEADERS: Final[Mapping[str, str]] = {
    "Cache-Control": "no-store",
    "X-Content-Type-Options": "nosniff",
    "Vary": "Accept",
}

log = structlog.get_logger()


class Failure(Exception):
    """A request that HTTP itself has a status for."""

    def __init__(self, status: int, message: str, **headers: str) -> None:
        """`headers`: with underscores for hyphens."""
        super().__init__(message)
        self.status = status
        self.message = message
        self.headers = {name.replace("_", "-"): value for name, value in headers.items()}


class GraphQLOverHTTP:
    """The endpoint, as an ASGI application, so that every method reaches it."""

    def __init__(
        self,
        runner: Operations,
        door: Door,
        *,
        streams: EventStreams,
        max_body_bytes: int,
        playground: Callable[[], Response] | None,
    ) -> None:
        """`playground` makes the page for browsers; None when it is switched off."""
        self._operations = runner
        self._door = door
        self._streams = streams
        self._max_body_bytes = max_body_bytes
        self._playground = playground

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        request = Request(scope, receive)
        request_id = credentials.request_id(request.headers)
        structlog.contextvars.bind_contextvars(request_id=request_id)
        try:
            with self._operations.tracing.request(request.method, request.headers):
                response = await self._respond(request, request_id)
        except ClientDisconnect:
            return
        except Exception as error:  # noqa: BLE001  # whatever it is, the client gets an answer, and the log the rest
            response = refusal(error, request_id)
        for name, value in _HEADERS.items():
            response.headers.setdefault(name, value)
        response.headers["X-Request-Id"] = request_id
        log.debug("request", method=request.method, status=response.status_code)
        await response(scope, receive, send)

    async def _respond(self, request: Request, request_id: str) -> Response:
        if request.method not in {*_READING, "POST"}:
            raise Failure(405, "Send GET or POST.", Allow=_ALLOWED)
        media_type = self._negotiate(request)
        if media_type == HTML and self._playground:
            return self._playground()
        # First: what cannot be read is counted too.
        viewer = await self._door.admit(request)
        asked = self._operations.read(_of_url(request) if request.method in _READING else await self._of_body(request))
        context = self._operations.context(viewer, request_id=request_id, address=credentials.address(request))
        if viewer.is_nobody and credentials.credentials(request).by_cookie:
            # Of a session that has ended; the browser may as well drop it.
            context.cookies = False
        try:
            operation = self._operations.choose(asked)
        except NotRunnable as error:
            refused = Answer([operations.shown(each, request_id=request_id) for each in error.errors])
            return _response(refused, media_type)
        self._check(operation, request.method, media_type)
        if operation.kind is OperationType.SUBSCRIPTION:
            answers = self._operations.stream(operation, context)
            return self._streams.respond(answers, context=context)
        key = request.headers.get(idempotency.HEADER)
        replayed = False
        if key is not None and operation.kind is OperationType.MUTATION:
            run = partial(self._operations.run, operation, context)
            answer, replayed = await idempotency.once(key, operation, viewer, now=context.now, run=run)
        else:
            answer = await self._operations.run(operation, context)
        if request.headers.get(_COST, "").lower() == "true":
            answer = replace(answer, extensions=self._operations.cost_of(operation))
        response = self._with_cookies(_response(answer, media_type), request, context)
        if replayed:
            response.headers[idempotency.REPLAYED] = "true"
        return response

    def _negotiate(self, request: Request) -> str:
        offers: tuple[str, ...] = (GRAPHQL, JSON)
        if request.method == "POST":
            offers = (*offers, EVENT_STREAM)
        elif self._playground:
            offers = (*offers, HTML)
        media_type = preferred(", ".join(request.headers.getlist("accept")), offers)
        if media_type is None:
            raise Failure(406, f"None of the types in `Accept` is served here: {', '.join(offers)}.")
        return media_type

    async def _of_body(self, request: Request) -> object:
        if not is_json(request.headers.get("content-type", "")):
            raise Failure(415, "Send JSON in UTF-8, with `Content-Type: application/json`.", Accept_Post=JSON)
        if request.headers.get("content-encoding", "identity").lower() != "identity":
            raise Failure(415, "Send the body uncompressed.", Accept_Encoding="identity")
        body = await self._read(request)
        try:
            return orjson.loads(body)
        except orjson.JSONDecodeError as error:
            raise BadInput.at("body", f"The body cannot be read as JSON: {error}.") from None

    async def _read(self, request: Request) -> bytes:
        # Starlette's own limit answers in plain text; a client of this endpoint reads JSON.
        declared = request.headers.get("content-length", "")
        size = int(declared) if declared.isdecimal() else 0
        chunks = []
        if size <= self._max_body_bytes:
            size = 0
            started = asyncio.get_running_loop().time()
            try:
                async with asyncio.timeout(_BODY_S) as deadline:
                    async for chunk in request.stream():
                        size += len(chunk)
                        if size > self._max_body_bytes:
                            break
                        chunks.append(chunk)
                        earned = min(_BODY_S + size / _BODY_BYTES_PER_S, _LONGEST_BODY_S)
                        deadline.reschedule(started + earned)
            except TimeoutError:
                raise Failure(408, "The body comes too slowly.", Connection="close") from None
        if size > self._max_body_bytes:
            raise Failure(413, f"The body is larger than {self._max_body_bytes} bytes. Send it in parts.")
        return b"".join(chunks)

    @staticmethod
    def _check(operation: Operation, method: str, media_type: str) -> None:
        if operation.kind is OperationType.MUTATION and method in _READING:
            raise Failure(405, "Mutations are sent by POST.", Allow="POST")
        if operation.kind is OperationType.SUBSCRIPTION and media_type != EVENT_STREAM:
            raise BadInput.at(
                "query",
                "Subscriptions are sent over a WebSocket (graphql-transport-ws), or by POST with "
                "`Accept: text/event-stream`.",
            )

    @staticmethod
    def _with_cookies(response: Response, request: Request, context: Context) -> Response:
        if context.cookies is False:
            credentials.forget_cookie(response, request)
        elif context.cookies is not None and context.cookies is not True:
            tokens = context.cookies
            credentials.set_cookie(response, request, tokens.access_token, expires_at=tokens.expires_at)
        return response


def refusal(error: Exception, request_id: str) -> Response:
    """Answer a request of which nothing was run, with the status that HTTP has for it."""
    if isinstance(error, Failure):
        shown: Shown = {"message": error.message, "extensions": {"code": BAD_INPUT}}
        response = _json({"errors": [shown]}, status=error.status)
        response.headers.update(error.headers)
        return response
    shown = operations.shown(error, request_id=request_id)
    response = _json({"errors": [shown]}, status=_STATUS.get(shown["extensions"]["code"], 400))
    _say_when(response, [shown])
    if isinstance(error, Unauthenticated):
        response.headers["WWW-Authenticate"] = "Bearer"
    return response


def _of_url(request: Request) -> object:
    if len(request.scope["query_string"]) > _LONGEST_QUERY_STRING:
        raise Failure(414, "The URL is too long. Send the request by POST.")
    try:
        pairs = parse_qsl(
            request.scope["query_string"].decode("ascii"), errors="strict", max_num_fields=_MOST_PARAMETERS
        )
        parameters: dict[str, object] = dict(pairs)
        for name in ("variables", "extensions"):
            if name in parameters:
                parameters[name] = orjson.loads(str(parameters[name]))
    except ValueError as error:
        raise BadInput.at("url", f"The URL's parameters cannot be read: {error}.") from None
    return parameters


def _response(answer: Answer, media_type: str) -> Response:
    """Answer with the status that the media type asks for.

    `application/json` has 200 for every well-formed request, as older clients expect. A failure of the whole request
    that passes by itself is told to proxies and retrying clients too.
    """
    if media_type == EVENT_STREAM:
        return sse.whole(answer)
    failure = answer.failure
    if failure in {ServiceUnavailable.code, RateLimited.code}:
        status = _STATUS[failure]
    else:
        status = 400 if media_type == GRAPHQL and not answer.started else 200
    response = _json(answer.body, status=status, media_type=media_type)
    if status == _STATUS.get(failure or ""):
        _say_when(response, answer.errors)
    return response


def _json(shape: object, *, status: int, media_type: str = JSON) -> Response:
    return Response(encode(shape), status_code=status, headers={"Content-Type": f"{media_type}; charset=utf-8"})


def _say_when(response: Response, errors: Sequence[Shown]) -> None:
    waits = [error["extensions"].get("retryAfterMs", 0) for error in errors]
    if any(waits):
        response.headers["Retry-After"] = str(math.ceil(max(waits) / 1000))
