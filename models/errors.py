"""Everything that can go wrong on purpose, drawn as a tree, each with the code its client sees."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

Path = tuple[str | int, ...]


@dataclass(frozen=True, slots=True)
class Fault:
    """One thing wrong with an input: where it stands, and what to do about it."""

    path: Path
    message: str
    code: str = "INVALID"


def _together(faults: Sequence[Fault]) -> str:
    """Write faults as one message: the first three, and how many more there are."""
    if len(faults) == 1:
        return faults[0].message
    told = [fault.message.removesuffix(".") for fault in faults[:3]]
    more = [f"and {len(rest)} more"] if (rest := faults[3:]) else []
    return f"{'; '.join(told + more)}."


class AgentHubError(Exception):
    """The root: an error whose message may be shown to the client as it is."""

    code: ClassVar[str] = "INTERNAL_SERVER_ERROR"

    def __init__(self, message: str, *, field: str | None = None) -> None:
        """`field` names the input at fault in snake_case, dots between levels."""
        super().__init__(message)
        self.message = message
        self.field = field


class BadInput(AgentHubError):
    """The input breaks a rule; lists every fault, not only the first."""

    code = "BAD_USER_INPUT"

    def __init__(self, faults: Sequence[Fault]) -> None:
        first = faults[0]
        super().__init__(_together(faults), field=".".join(map(str, first.path)))
        self.faults = tuple(faults)

    @classmethod
    def at(cls, field: str, message: str, *, code: str = "INVALID") -> "BadInput":
        """One fault at one field."""
        return cls([Fault(tuple(field.split(".")), message, code)])


class Unauthenticated(AgentHubError):
    """Nobody is signed in, or what they showed is no longer good."""

    code = "UNAUTHENTICATED"


class Forbidden(AgentHubError):
    """Known, but not allowed."""

    code = "FORBIDDEN"


class NotFound(AgentHubError):
    """There is no such thing, or not for this caller."""

    code = "NOT_FOUND"


class Conflict(AgentHubError):
    """It would clash with what is stored."""

    code = "CONFLICT"


class RateLimited(AgentHubError):
    """Too many tries; `retry_after_ms` says when to come back."""

    code = "RATE_LIMITED"

    def __init__(self, message: str, *, retry_after_ms: int) -> None:
        super().__init__(message)
        self.retry_after_ms = retry_after_ms


class TooComplex(AgentHubError):
    """The document asks for more than one request may: which `measure`, how much, and the most there may be."""

    code = "QUERY_TOO_COMPLEX"

    def __init__(self, message: str, *, measure: str, actual: int, limit: int) -> None:
        super().__init__(message)
        self.measure = measure
        self.actual = actual
        self.limit = limit


class BudgetExhausted(AgentHubError):
    """There are not enough tokens left; says how many there are, were spent and are held."""

    code = "BUDGET_EXHAUSTED"

    def __init__(self, message: str, *, limit: int, spent: int, reserved: int) -> None:
        super().__init__(message)
        self.limit = limit
        self.spent = spent
        self.reserved = reserved

    @classmethod
    def of(cls, limit: int, *, spent: int, reserved: int, asked: int) -> "BudgetExhausted":
        """Refuse to hold or spend so many tokens."""
        return cls(
            f"{asked} tokens were asked for, and {max(limit - spent - reserved, 0)} are left: {spent} of {limit} are "
            f"spent, {reserved} held. Wait for calls that are under way, or have the limit raised.",
            limit=limit,
            spent=spent,
            reserved=reserved,
        )


class TooSlow(RateLimited):
    """A subscriber did not read fast enough and was let go; it resumes by cursor."""


class ServiceUnavailable(AgentHubError):
    """The database is away; nothing was changed or, for an idempotent call, sending again is safe."""

    code = "SERVICE_UNAVAILABLE"

    def __init__(
        self,
        message: str = "The database did not answer in time. Send the request again.",
        *,
        retry_after_ms: int = 1000,
    ) -> None:
        super().__init__(message)
        self.retry_after_ms = retry_after_ms


class Refused(AgentHubError):
    """The service cannot start like this; the message says what to change."""
