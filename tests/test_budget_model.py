"""A budget does what a plain model of one does, whatever is done to it in whatever order."""

import asyncio
from collections.abc import AsyncIterator, Coroutine
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any, TypeVar

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule, run_state_machine_as_test

from models.budgets import kept
from models.budgets.accounts import Crossing
from models.budgets.changing import Budgets, done
from models.budgets.kept import Budget, ReservationStatus, Scope
from models.budgets.ledger import Extend, Limit, Request, Reserve, Settle, Spend, reservation_of
from models.errors import AgentHubError, BudgetExhausted, Conflict
from models.store import database
from models.store.commits import Commits
from models.store.database import Database, Key, Session
from models.threads import conversations

T = TypeVar("T")

KEYS = st.sampled_from("abcd")
TOKENS = st.integers(1, 600)
FEW = st.integers(0, 400)
AGENT = Key()


@dataclass
class Held:
    """A reservation as the model knows it."""

    tokens: int
    is_open: bool = True
    settled: tuple[int, int] | None = None
    reported: tuple[int, int] | None = None

    @property
    def is_ended(self) -> bool:
        """Whether anybody has said what was spent."""
        return (self.settled or self.reported) is not None

    @property
    def counted(self) -> tuple[int, int]:
        """What it counts for."""
        return max(self.settled or (0, 0), self.reported or (0, 0), key=sum)


@dataclass
class Model:
    """A budget, with nothing that makes it hold among many."""

    limit: int = 1000
    held: dict[str, Held] = field(default_factory=dict)
    direct: list[int] = field(default_factory=lambda: [0, 0])
    late: int = 0
    told: list[int] = field(default_factory=list)
    said: list[int] = field(default_factory=list)

    @property
    def spent(self) -> int:
        """All that was spent."""
        return sum(self.direct) + sum(sum(each.counted) for each in self.held.values())

    @property
    def reserved(self) -> int:
        """All that is held."""
        return sum(each.tokens for each in self.held.values() if each.is_open)

    def end(self, held: Held) -> None:
        """Hold it no more."""
        self.late += not held.is_open and not held.is_ended
        held.is_open = False

    def tell(self) -> None:
        """Tell of what is reached and was not before."""
        reached = [percent for percent in (75, 90, 95, 100) if self.spent * 100 >= self.limit * percent]
        self.said += [percent for percent in reached if percent not in self.told]
        self.told = reached


class Machine(RuleBasedStateMachine):
    """Does the same to a stored budget and to the model. Its rules run beside the event loop, and wait for it."""

    loop: asyncio.AbstractEventLoop
    commits: Commits

    def __init__(self) -> None:
        super().__init__()
        self.model = Model()
        self.told: list[int] = []
        self.hearing: list[int] = []
        self.budgets = Budgets(tell=self._hear)
        ref = conversations.Ref(Key(), is_new=True)
        self.scope = Scope.thread(ref.thread)
        self.run(conversations.open_now(ref, limit=self.model.limit, now=datetime.now(UTC)))

    async def _hear(self, crossings: Any, /, *, session: Session) -> None:
        assert session.in_transaction
        assert all(isinstance(each, Crossing) and each.scope == self.scope for each in crossings)
        # A transaction may be tried again: what it told is what it said the last time.
        self.hearing = [each.percent for each in crossings]

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        """Run something where everything else runs."""
        return asyncio.run_coroutine_threadsafe(work, self.loop).result(30)

    def submit(self, request: Request) -> Any:
        """Do something to the stored budget."""
        self.hearing = []
        answer = self.run(self.commits.submit(self.budgets, request))
        self.told += self.hearing
        return answer

    def key(self, name: str) -> Key:
        """Give the key of a reservation."""
        return reservation_of(Reserve(self.scope, name, 1, timedelta(1)))

    @rule(name=KEYS, tokens=TOKENS)
    def reserve(self, name: str, tokens: int) -> None:
        """Reserve under a key that is new, or that is not."""
        answer = self.submit(Reserve.of(self.scope, tokens=tokens, key=name, lease_s=3600, agent=None))
        known = self.model.held.get(name)
        if known is not None and known.tokens != tokens:
            assert isinstance(answer, Conflict)
        elif known is not None:
            assert done(answer).about["_id"] == self.key(name)
        elif self.model.spent + self.model.reserved + tokens > self.model.limit:
            assert isinstance(answer, BudgetExhausted)
            assert (answer.limit, answer.spent, answer.reserved) == (
                self.model.limit,
                self.model.spent,
                self.model.reserved,
            )
        else:
            assert done(answer).about["tokens"] == tokens
            self.model.held[name] = Held(tokens)
            # The property: what is held was there to be held.
            assert self.model.spent + self.model.reserved <= self.model.limit

    @precondition(lambda self: self.model.held)
    @rule(data=st.data(), prompt=FEW, completion=FEW)
    def settle(self, data: st.DataObject, prompt: int, completion: int) -> None:
        """Settle a reservation that is open, has expired, or was settled before."""
        name = data.draw(st.sampled_from(sorted(self.model.held)))
        held = self.model.held[name]
        answer = self.submit(Settle.of(self.key(name), prompt_tokens=prompt, completion_tokens=completion))
        if held.settled is not None and held.settled != (prompt, completion):
            assert isinstance(answer, Conflict)
            return
        assert done(answer).about["settled_at"] is not None
        self.model.end(held)
        held.settled = (prompt, completion)
        self.model.tell()

    @precondition(lambda self: self.model.held)
    @rule(data=st.data(), prompt=FEW, completion=FEW)
    def report(self, data: st.DataObject, prompt: int, completion: int) -> None:
        """Report usage of a reservation."""
        name = data.draw(st.sampled_from(sorted(self.model.held)))
        held = self.model.held[name]
        self._spend(Spend(None, self.key(name), prompt, completion, AGENT))
        self.model.end(held)
        before = held.reported or (0, 0)
        held.reported = (before[0] + prompt, before[1] + completion)
        self.model.tell()

    @rule(prompt=FEW, completion=FEW)
    def spend(self, prompt: int, completion: int) -> None:
        """Report usage of no reservation."""
        self._spend(Spend(self.scope.id, None, prompt, completion, AGENT))
        self.model.direct[0] += prompt
        self.model.direct[1] += completion
        self.model.tell()

    def _spend(self, spend: Spend) -> None:
        self.hearing = []
        work = database.transaction(Budget, lambda session: self.budgets.spend([spend], session=session))
        assert self.run(work) == {self.scope.id}
        self.told += self.hearing

    @precondition(lambda self: any(each.is_open for each in self.model.held.values()))
    @rule(data=st.data())
    def expire(self, data: st.DataObject) -> None:
        """Let the time of a reservation have passed."""
        name = data.draw(st.sampled_from(sorted(name for name, each in self.model.held.items() if each.is_open)))
        self.model.held[name].is_open = False
        self.run(self._expire(self.key(name)))

    async def _expire(self, key: Key) -> None:
        past = datetime.now(UTC) - timedelta(hours=1)
        rows, reservations = database.collection(Budget), database.collection(kept.Reservation)
        await rows.update_one({"_id": self.scope.id, "holds.key": key}, {"$set": {"holds.$.expires_at": past}})
        await reservations.update_one({"_id": key}, {"$set": {"expires_at": past}})

    @precondition(lambda self: self.model.held)
    @rule(data=st.data())
    def extend(self, data: st.DataObject) -> None:
        """Extend a reservation, which only one that is open allows."""
        name = data.draw(st.sampled_from(sorted(self.model.held)))
        answer = self.submit(Extend.of(self.key(name), lease_s=1800))
        assert isinstance(answer, AgentHubError) is not self.model.held[name].is_open

    @rule(tokens=st.integers(1, 3000))
    def limit(self, tokens: int) -> None:
        """Raise or lower the limit."""
        assert done(self.submit(Limit.of(self.scope, tokens=tokens))).budget["limit"] == tokens
        self.model.limit = tokens
        self.model.tell()

    @invariant()
    def the_two_are_the_same(self) -> None:
        """Compare every figure, and what was told."""
        model = self.model
        row = self.run(kept.require(self.scope))
        counted = [each.counted for each in model.held.values()]
        lost = [each.tokens for each in model.held.values() if not each.is_open and not each.is_ended]
        assert row["limit"] == model.limit
        assert row["prompt_tokens"] == model.direct[0] + sum(prompt for prompt, _ in counted)
        assert row["completion_tokens"] == model.direct[1] + sum(completion for _, completion in counted)
        assert row["reserved"] == model.reserved
        assert (row["unsettled"], row["unsettled_tokens"]) == (len(lost), sum(lost))
        assert row["settled_late"] == model.late
        assert row["percent"] == pytest.approx(model.spent * 100 / model.limit)
        assert self.told == model.said
        stored = self.run(kept.reservations([self.key(name) for name in model.held]))
        for name, held in model.held.items():
            expected = (
                ReservationStatus.SETTLED
                if held.is_ended
                else ReservationStatus.OPEN
                if held.is_open
                else ReservationStatus.EXPIRED
            )
            assert kept.status(stored[self.key(name)]) is expected


@pytest.fixture
async def commits(store: Database) -> AsyncIterator[Commits]:
    """Give a queue of commits."""
    async with Commits(Budget) as queue:
        yield queue


async def test_a_budget_does_what_a_plain_model_of_one_does(commits: Commits) -> None:
    Machine.loop = asyncio.get_running_loop()
    Machine.commits = commits
    limits = settings(max_examples=15, stateful_step_count=25, deadline=None, suppress_health_check=list(HealthCheck))

    await asyncio.to_thread(run_state_machine_as_test, Machine, settings=limits)
