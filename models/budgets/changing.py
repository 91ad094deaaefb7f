"""The change that budgets are for `models/store/commits.py`; and what usage does to them within its own."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

from models.budgets.accounts import Crossing
from models.budgets.kept import Scope
from models.budgets.ledger import Done, Ledger, Limit, Request, Reserve, Spend, reservation_of
from models.errors import AgentHubError
from models.store.database import Key, Session


class Tell(Protocol):
    """Tells of crossings in the transaction that brings them: what it stores is stored exactly once for each."""

    async def __call__(self, crossings: Sequence[Crossing], /, *, session: Session) -> None: ...


class Reopen(Protocol):
    """Hears, in the transaction that does it, of exhausted budgets that have tokens again."""

    async def __call__(self, scopes: Sequence[Scope], /, *, session: Session) -> None: ...


async def _nobody(_: Sequence[Any], /, *, session: Session) -> None:
    """Tell nobody."""


class Budgets:
    """What can be done to budgets, by any number of processes at once."""

    def __init__(
        self, *, tell: Tell = _nobody, reopen: Reopen = _nobody, told: Callable[[], None] = lambda: None
    ) -> None:
        """`tell` and `reopen` store what follows from a change, in its transaction; `told` is called once it has."""
        self._tell = tell
        self._reopen = reopen
        self._told = told
        self._has_told = False

    async def prepare(self, items: Sequence[Request]) -> None:
        """Read nothing before: all of it may change."""

    async def apply(
        self,
        items: Sequence[Request],
        prepared: None,  # noqa: ARG002  # nothing is
        *,
        commit: Key,  # noqa: ARG002  # what an earlier try has done is recognised by its reservation
        again: bool,  # noqa: ARG002  # the same is read each time
        session: Session,
    ) -> Sequence[Done | AgentHubError]:
        """Do what is asked, in the order of asking; what cannot be done is answered with the reason."""
        ledger = await Ledger.read(
            [each.scope.id for each in items if isinstance(each, Reserve | Limit)],
            [reservation_of(each) for each in items if not isinstance(each, Limit)],
            session=session,
        )
        answers = [ledger.follow(each) for each in items]
        await self._store(ledger, session=session)
        return [
            answer if isinstance(answer, AgentHubError) else Done(answer[0].shown(), answer[1]) for answer in answers
        ]

    def committed(self) -> None:
        """Have those who watch look."""
        if self._has_told:
            self._has_told = False
            self._told()

    async def spend(self, spends: Sequence[Spend], *, session: Session) -> frozenset[str]:
        """Count usage against its budgets, in the transaction that counts it; gives the budgets that there are."""
        ledger = await Ledger.read(
            [each.budget for each in spends if each.budget],
            [each.reservation for each in spends if each.reservation],
            session=session,
        )
        for each in spends:
            ledger.spend(each)
        await self._store(ledger, session=session)
        return frozenset(ledger.accounts)

    async def amend(
        self,
        spent: Mapping[str, Mapping[str, int]],
        reported: Mapping[Key, Mapping[str, int]],
        *,
        session: Session,
    ) -> None:
        """Add what is missing to what budgets have spent, and to what events are known to say of reservations."""
        ledger = await Ledger.read(spent, reported, session=session)
        ledger.amend(spent, reported)
        await self._store(ledger, session=session)

    async def _store(self, ledger: "Ledger", *, session: Session) -> None:
        crossings, reopened = await ledger.store(session=session)
        self._has_told = self._has_told or bool(crossings or reopened)
        if reopened:
            await self._reopen(reopened, session=session)
        if crossings:
            await self._tell(crossings, session=session)


def done(answer: Done | AgentHubError) -> Done:
    """Give what was done. Raises why it was not."""
    if isinstance(answer, AgentHubError):
        raise answer
    return answer
