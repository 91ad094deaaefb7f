"""The one place that turns what went wrong into what a client reads: a code, a field, a message; the rest is masked."""

import re
from collections.abc import Mapping
from typing import Any, Final

import structlog
from graphql import GraphQLError, GraphQLSyntaxError
from strawberry.utils.str_converters import to_camel_case

from models.errors import AgentHubError, BadInput, BudgetExhausted, RateLimited, ServiceUnavailable, TooComplex
from models.store import database

PARSE_FAILED: Final = "GRAPHQL_PARSE_FAILED"
VALIDATION_FAILED: Final = "GRAPHQL_VALIDATION_FAILED"
BAD_INPUT: Final = BadInput.code
INTERNAL: Final = AgentHubError.code

_MASKED: Final = "Something went wrong on our side. Quote the request id when you report it."
# How graphql-core says where in a variable a value is wrong; its callback gives the path only inside this text.
_VARIABLE_PATH: Final = re.compile(r"Variable '\$(\w+)' has invalid value(?: at \.?([^:]+))?: ")
_SUGGESTION: Final = re.compile(r" Did you mean [^?]*(?:\?|\Z)")
# graphql-core repeats the values that it refuses, however long they are.
_LONGEST: Final = 1000

log = structlog.get_logger()


class ScalarFault(GraphQLError):
    """A value that a scalar of ours refuses."""

    def __init__(self, message: str) -> None:
        super().__init__(message, extensions={"code": BAD_INPUT})


def present(error: GraphQLError, *, request_id: str) -> dict[str, Any]:
    """Give the error as the response carries it; logs what must be masked."""
    cause = _cause(error)
    message = error.message if len(error.message) <= _LONGEST else f"{error.message[:_LONGEST]}…"
    answer: dict[str, Any] = {"message": message}
    if error.locations:
        answer["locations"] = [{"line": place.line, "column": place.column} for place in error.locations]
    if error.path:
        answer["path"] = error.path
    if isinstance(cause, AgentHubError):
        answer["message"] = cause.message
        answer["extensions"] = describe(cause)
    elif cause is not None and not isinstance(cause, GraphQLError):
        if isinstance(cause, database.DatabaseError) and database.is_passing(cause):
            away = ServiceUnavailable()
            answer["message"] = away.message
            answer["extensions"] = describe(away)
            log.warning("database away", request_id=request_id, error=type(cause).__name__)
        else:
            answer["message"] = _MASKED
            answer["extensions"] = {"code": INTERNAL, "requestId": request_id}
            log.error("unforeseen error", request_id=request_id, path=error.path, exc_info=cause)
    else:
        answer["message"] = _SUGGESTION.sub("", message)
        answer["extensions"] = _of_the_language(error)
    return answer


def describe(error: AgentHubError) -> dict[str, Any]:
    """Give the `extensions` of a domain error: its code, the fields at fault in the client's spelling."""
    extensions: dict[str, Any] = {"code": error.code}
    if error.field:
        extensions["field"] = spell(error.field)
    if isinstance(error, BadInput):
        extensions["fields"] = [
            {
                "path": [part if isinstance(part, int) else to_camel_case(part) for part in fault.path],
                "code": fault.code,
                "message": fault.message,
            }
            for fault in error.faults
        ]
    if isinstance(error, TooComplex):
        extensions |= {"measure": to_camel_case(error.measure), "actual": error.actual, "limit": error.limit}
    if isinstance(error, BudgetExhausted):
        extensions |= {"limit": error.limit, "spent": error.spent, "reserved": error.reserved}
    if isinstance(error, ServiceUnavailable | RateLimited):
        extensions["retryAfterMs"] = error.retry_after_ms
    return extensions


def spell(field: str) -> str:
    """Spell a field as clients know it: `events.0.prompt_tokens` becomes `events.0.promptTokens`."""
    return ".".join(to_camel_case(part) for part in field.split("."))


def mark(error: GraphQLError, code: str) -> GraphQLError:
    """Set the code of an error that has none yet."""
    if "code" not in (error.extensions or {}):
        error.extensions = {**(error.extensions or {}), "code": code}
    return error


def _cause(error: GraphQLError) -> BaseException | None:
    cause: BaseException | None = error.original_error
    while isinstance(cause, GraphQLError) and cause.original_error is not None:
        cause = cause.original_error
    return cause


def _of_the_language(error: GraphQLError) -> Mapping[str, Any]:
    extensions = dict(error.extensions or {})
    if isinstance(error, GraphQLSyntaxError):
        extensions.setdefault("code", PARSE_FAILED)
    elif error.path is None or isinstance(_cause(error), ScalarFault):
        # Nothing was run yet: a variable or an argument could not be read.
        extensions.setdefault("code", BAD_INPUT)
        if (found := _VARIABLE_PATH.match(error.message)) and "field" not in extensions:
            extensions["field"] = re.sub(r"\[(\d+)\]", r".\1", found[2] or found[1])
    else:
        # A variable that is null, in the place of an argument that may not be, is found out when the field is run.
        extensions.setdefault("code", BAD_INPUT if error.message.startswith("Argument ") else INTERNAL)
    return extensions
