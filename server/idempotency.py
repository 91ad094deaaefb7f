"""The header Idempotency-Key: a mutation sent twice under one key runs once and is answered twice."""

import hashlib
import re
from collections.abc import Awaitable, Callable
from datetime import datetime
from typing import Final

import orjson
from graphql import DocumentNode, FieldNode, FragmentDefinitionNode, OperationDefinitionNode

from auth.viewer import Viewer
from models.errors import AgentHubError, BadInput, RateLimited, ServiceUnavailable
from models.store import idempotency
from models.store.idempotency import Place
from server.operations import Answer, Operation

HEADER: Final = "idempotency-key"
REPLAYED: Final = "Idempotent-Replayed"
_KEY: Final = re.compile(r"[\x21-\x7e]{1,255}\Z")
# Answers with secrets are kept nowhere, and those that set a cookie could not be given again.
_SECRET: Final = frozenset({"login", "register", "refreshSession", "createApiKey", "webhookSecret"})
# Nothing was done, or a retry would do something else: not to be kept.
_PASSING: Final = frozenset({ServiceUnavailable.code, RateLimited.code, AgentHubError.code})


_SELECTING: Final = (OperationDefinitionNode, FragmentDefinitionNode)


async def once(
    key: str, operation: Operation, viewer: Viewer, *, now: datetime, run: Callable[[], Awaitable[Answer]]
) -> tuple[Answer, bool]:
    """Run a mutation unless it has been run under this key; says whether the answer is an earlier one.

    Raises `BadInput` for a key that is none, or where none may be given, and `Conflict` as `idempotency.begin` does.
    """
    if not _KEY.match(key):
        raise BadInput.at("idempotency_key", "An Idempotency-Key has 1 to 255 visible ASCII characters.")
    if viewer.is_nobody:
        raise BadInput.at("idempotency_key", "An Idempotency-Key needs somebody who is signed in.")
    if _fields(operation.tree) & _SECRET:
        raise BadInput.at(
            "idempotency_key", f"Answers with secrets are not kept: ask for {', '.join(sorted(_SECRET))} without it."
        )
    place = await idempotency.begin(f"{viewer.scope} {key}", request=_digest(operation), now=now)
    if not isinstance(place, Place):
        kept = orjson.loads(place)
        return Answer(kept.get("errors", ()), kept["data"], started=True), True
    answer = await run()
    if not answer.started or answer.failure in _PASSING:
        await place.free()
    else:
        await place.keep(orjson.dumps(answer.body))
    return answer, False


def _digest(operation: Operation) -> bytes:
    request = operation.request
    parts = [request.query, request.operation_name, request.variables]
    return hashlib.sha256(orjson.dumps(parts, option=orjson.OPT_SORT_KEYS)).digest()


def _fields(tree: DocumentNode) -> set[str]:
    """Name all fields of a document, at whatever depth."""
    found: set[str] = set()
    waiting = [definition.selection_set for definition in tree.definitions if isinstance(definition, _SELECTING)]
    while waiting:
        for node in waiting.pop().selections:
            if isinstance(node, FieldNode):
                found.add(node.name.value)
            inner = getattr(node, "selection_set", None)
            if inner:
                waiting.append(inner)
    return found
