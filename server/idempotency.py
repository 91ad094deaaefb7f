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
# Secrets are kept nowhere, neither those of an answer nor a digest that could be guessed from; and an answer that set a
# cookie could not be given again.
_SECRET: Final = frozenset(
    {"login", "register", "refreshSession", "changePassword", "createUser", "createApiKey", "webhookSecret"}
)
# Of these nothing comes of being sent again: they say what is so, and count it once.
_HARMLESS: Final = frozenset({"collectUsage", "collectSnapshots"})
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
            "idempotency_key", f"What holds secrets is not kept: ask for {', '.join(sorted(_SECRET))} without it."
        )
    place = await idempotency.begin(f"{viewer.scope} {key}", request=_digest(operation), now=now)
    if not isinstance(place, Place):
        kept = orjson.loads(place)
        return Answer(kept.get("errors", ()), kept["data"], started=True), True
    answer = await run()
    if _is_undone(answer, operation):
        await place.free()
    elif not _is_unknown(answer):
        await place.keep(orjson.dumps(answer.body))
    return answer, False


def _is_undone(answer: Answer, operation: Operation) -> bool:
    """Whether the request may be run again, and should: nothing was done, and it may go better another time."""
    if not answer.started:
        return True
    codes = {error["extensions"]["code"] for error in answer.errors}
    if codes == {ServiceUnavailable.code} and operation.label in _HARMLESS:
        return True
    refused = all(len(error.get("path", ())) == 1 for error in answer.errors)
    nothing = not any((answer.data or {}).values())
    return (
        refused and nothing and RateLimited.code in codes and not codes & {ServiceUnavailable.code, AgentHubError.code}
    )


def _is_unknown(answer: Answer) -> bool:
    """Whether it may have taken effect without anybody knowing: the database went away in the middle of it."""
    return any(error["extensions"]["code"] == ServiceUnavailable.code for error in answer.errors)


def _digest(operation: Operation) -> bytes:
    request = operation.request
    parts = [request.query, request.operation_name, request.variables]
    try:
        return hashlib.sha256(orjson.dumps(parts, option=orjson.OPT_SORT_KEYS)).digest()
    except TypeError:
        raise BadInput.at("variables", "These variables are nested too deeply.") from None


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
