"""Group commit: who arrives while a commit is in flight shares the next transaction; each gets its own answer."""

import asyncio
import itertools
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Final, Protocol, Self, TypeVar

import structlog
from beanie import Document
from prometheus_client import Histogram

from models.errors import ServiceUnavailable
from models.store import database, turns
from models.store.database import Key, Session
from models.store.orphans import Orphans

C_contra = TypeVar("C_contra", contravariant=True)
R_co = TypeVar("R_co", covariant=True)
C = TypeVar("C")
R = TypeVar("R")

log = structlog.get_logger()

# So many tries may fail, for whatever reason, before a process waits for its turn.
_PATIENCE: Final = 5
LARGEST: Final = 4000
"""What one transaction takes at most; what weighs so much goes alone."""

_LOOKS_EVERY_S: Final = 0.1
_CONTENDED_S: Final = 0.3

_WEIGHT: Final = Histogram(
    "agenthub_commit_weight", "Items in one group commit.", buckets=(1, 10, 50, 100, 500, 1000, 2000, 4000)
)
_TIME: Final = Histogram("agenthub_commit_seconds", "Time that a group commit takes.")


class Change(Protocol[C_contra, R_co]):
    """One kind of change: how a batch of items is applied inside a transaction."""

    async def prepare(self, items: Sequence[C_contra]) -> Any:  # noqa: ANN401  # whatever `apply` is then given
        """Read what can be read before the transaction.

        The sooner a transaction changes what others change too, the fewer of them have changed it since it began.
        """
        ...

    async def apply(
        self,
        items: Sequence[C_contra],
        prepared: Any,  # noqa: ANN401  # what `prepare` has read for this try
        *,
        commit: Key,
        again: bool,
        session: Session,
    ) -> Sequence[R_co]:
        """Apply the items and give one answer for each, in order.

        May run several times for one commit, after a conflict, a duplicate key or an outcome that nobody knows: then
        `again` is true, and `commit` the same, so that what is found under it is known to be this commit's own work.
        """
        ...

    def committed(self) -> None:
        """Take note that what was applied is stored."""
        ...


@dataclass(slots=True, eq=False)
class _Waiting:
    change: Change[Any, Any]
    item: Any
    weight: int
    deadline: float
    answer: asyncio.Future[Any] = field(default_factory=lambda: asyncio.get_running_loop().create_future())


class Commits:
    """The queue of one process. There is no timer: an idle queue commits at once, a busy one as soon as it can.

    Measured with 100-event batches and 64 callers: 485 batches a second against 237 without sharing, because the
    wait for the journal and the write conflicts are paid once for many.
    """

    def __init__(
        self,
        document: type[Document],
        *,
        largest: int = LARGEST,
        bound: int = 20_000,
        deadline_s: float = 10.0,
        turn: str = "commits",
    ) -> None:
        """`largest`: weight of one transaction; `bound`: weight that may wait; `document`: whose database commits.

        `turn` is shared by those who change the same documents.
        """
        self._document = document
        self._largest = largest
        self._bound = bound
        self._deadline_s = deadline_s
        self._queue: deque[_Waiting] = deque()
        self._weight = 0
        self._arrived = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._closing = False
        self._looks_at = 0.0
        self._contended_until = 0.0
        self._turn = turn
        self._orphans = Orphans()

    async def __aenter__(self) -> Self:
        self._task = asyncio.create_task(self._drain(), name="commits")
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        # What was taken in is finished before the process goes.
        self._closing = True
        self._arrived.set()
        if self._task:
            await self._task

    async def submit(self, change: Change[C, R], item: C, *, weight: int = 1) -> R:
        """Have `item` applied in the next transaction and return its answer once that has committed.

        Raises `ServiceUnavailable` when too much waits already, when the deadline passes, or when the process stops:
        nothing is lost by sending the same item again.
        """
        if self._closing or self._weight + weight > self._bound:
            raise ServiceUnavailable("Too much is waiting to be stored. Send the request again.")
        waiting = _Waiting(change, item, weight, asyncio.get_running_loop().time() + self._deadline_s)
        self._queue.append(waiting)
        self._weight += weight
        self._arrived.set()
        answer: R = await waiting.answer
        return answer

    async def _drain(self) -> None:
        while self._queue or not self._closing:
            if not self._queue:
                self._arrived.clear()
                await self._arrived.wait()
                continue
            batch = self._take()
            try:
                await self._commit(batch)
            except Exception:  # the queue must outlive whatever one batch does
                log.exception("group commit failed")
                _refuse(batch, ServiceUnavailable())

    def _take(self) -> list[_Waiting]:
        batch: list[_Waiting] = []
        weight = 0
        while self._queue and (not batch or weight + self._queue[0].weight <= self._largest):
            waiting = self._queue.popleft()
            self._weight -= waiting.weight
            if waiting.answer.cancelled():
                continue
            batch.append(waiting)
            weight += waiting.weight
        return batch

    async def _commit(self, batch: Sequence[_Waiting]) -> None:
        if not batch:
            return
        left = min(waiting.deadline for waiting in batch) - asyncio.get_running_loop().time()
        try:
            answers = await self._apply(batch, deadline_s=max(left, 0.0))
        except ServiceUnavailable as error:
            _refuse(batch, error)
        except Exception as error:  # noqa: BLE001  # whoever caused it is told; the others must not suffer for it
            if len(batch) == 1:
                _refuse(batch, error)
            else:
                for waiting in batch:
                    await self._commit([waiting])
        else:
            for waiting, answer in zip(batch, answers, strict=True):
                if not waiting.answer.done():
                    waiting.answer.set_result(answer)

    async def _is_contended(self, failed: int) -> bool:
        """Whether to take a turn: after several failures, or while others do, and for a while after either."""
        now = asyncio.get_running_loop().time()
        lost = failed >= _PATIENCE
        if not lost and now >= self._contended_until and now >= self._looks_at:
            self._looks_at = now + _LOOKS_EVERY_S
            lost = await turns.is_taken(self._turn)
        if lost:
            self._contended_until = now + _CONTENDED_S
        return now < self._contended_until

    async def _apply(self, batch: Sequence[_Waiting], *, deadline_s: float) -> Sequence[Any]:
        kinds: dict[Change[Any, Any], list[int]] = {}
        for place, waiting in enumerate(batch):
            kinds.setdefault(waiting.change, []).append(place)

        # Outside the body: every try of one commit knows its own work by the same id.
        commits = {change: Key() for change in kinds}

        tries = itertools.count()

        items = {change: [batch[place].item for place in places] for change, places in kinds.items()}
        prepared: dict[Change[Any, Any], Any] = {}

        async def body(session: Session) -> Mapping[int, Any]:
            again = next(tries) > 0
            await self._orphans.begin(session)
            answers: dict[int, Any] = {}
            for change, places in kinds.items():
                given = await change.apply(
                    items[change], prepared[change], commit=commits[change], again=again, session=session
                )
                answers.update(zip(places, given, strict=True))
            return answers

        _WEIGHT.observe(sum(waiting.weight for waiting in batch))
        # A duplicate key is a race with another process: the next try finds the other's work and counts it as such.
        with _TIME.time():
            async with turns.waiting(self._turn) as turn:

                async def before(failed: int) -> None:
                    if failed >= _PATIENCE:
                        await self._orphans.end()
                    if await self._is_contended(failed):
                        await turn.take()
                    for change in kinds:
                        prepared[change] = await change.prepare(items[change])

                answers = await database.transaction(
                    self._document, body, deadline_s=deadline_s, retry_duplicates=True, before=before
                )
        for change in kinds:
            change.committed()
        return [answers[place] for place in range(len(batch))]


def _refuse(batch: Sequence[_Waiting], error: Exception) -> None:
    for waiting in batch:
        if not waiting.answer.done():
            waiting.answer.set_exception(error)
