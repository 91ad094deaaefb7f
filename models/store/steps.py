"""Small transactions of many callers that share one: who arrives while it commits joins the next."""

from collections.abc import Awaitable, Callable, Sequence
from types import TracebackType
from typing import Any, Self, TypeVar

from beanie import Document

from models.errors import AgentHubError
from models.store.commits import Commits
from models.store.database import Key, Session

R = TypeVar("R")
Step = Callable[[Session], Awaitable[R]]
"""What one caller does within the transaction. It may run again, so it knows its own work by a key made outside of it.

It raises what it refuses before it writes anything: the other steps are committed all the same.
"""


class Steps:
    """The queue of one process for steps that all change the same few documents, and would conflict with each other."""

    def __init__(self, document: type[Document], *, stored: Callable[[], None], largest: int = 50) -> None:
        """Take what is called after each commit, `stored`; `largest`: steps in one transaction."""
        self._commits = Commits(document, largest=largest, bound=5000, turn=document.__name__)
        self._stored = stored

    async def __aenter__(self) -> Self:
        await self._commits.__aenter__()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._commits.__aexit__(kind, error, trace)

    async def run(self, step: Step[R]) -> R:
        """Run a step and give its result once it is stored. Raises what it raises, and `ServiceUnavailable`."""
        outcome: R | AgentHubError = await self._commits.submit(self, step)
        if isinstance(outcome, AgentHubError):
            raise outcome
        return outcome

    async def prepare(self, items: Sequence[Step[Any]]) -> None:
        """Read nothing before."""

    async def apply(
        self,
        items: Sequence[Step[Any]],
        prepared: None,  # noqa: ARG002  # nothing is
        *,
        commit: Key,  # noqa: ARG002  # each step knows its own work
        again: bool,  # noqa: ARG002  # as above
        session: Session,
    ) -> Sequence[Any]:
        """Run the steps one after the other; a refusal is an outcome like any other."""
        outcomes: list[Any] = []
        for step in items:
            try:
                outcomes.append(await step(session))
            except AgentHubError as refusal:
                outcomes.append(refusal)
        return outcomes

    def committed(self) -> None:
        """Tell that something is stored."""
        self._stored()
