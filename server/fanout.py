"""One execution and one encoding of an event for all whose answers are the same."""

import asyncio
from collections import OrderedDict
from collections.abc import Callable, Coroutine, Hashable
from typing import Any, Final, Generic, TypeVar

T = TypeVar("T")

# An event reaches everybody within a burst; who reads it later reads how things are then.
_KEPT_S: Final = 1.0
_MOST: Final = 1000


class _Awaited(asyncio.Future[T]):
    """An answer that many wait for: who leaves early takes it from nobody, and so needs no shield of their own."""

    def cancel(self, msg: object = None) -> bool:  # noqa: ARG002  # as the base class has it
        """Refuse: who is cancelled while waiting ends as soon as the answer is there."""
        return False


class FanOut(Generic[T]):
    """The answers to the latest events."""

    def __init__(self) -> None:
        self._answers: OrderedDict[Hashable, tuple[float, _Awaited[T]]] = OrderedDict()
        self._making: set[asyncio.Task[None]] = set()

    async def answer(self, key: Hashable, make: Callable[[], Coroutine[Any, Any, T]]) -> T:
        """Give the answer under a key, making it once."""
        now = asyncio.get_running_loop().time()
        while self._answers and (len(self._answers) > _MOST or now - next(iter(self._answers.values()))[0] > _KEPT_S):
            self._answers.popitem(last=False)
        if key not in self._answers:
            self._answers[key] = now, _Awaited()
            # In a task of its own: who asked first may leave before it is done.
            task = asyncio.create_task(self._make(self._answers[key][1], make))
            self._making.add(task)
            task.add_done_callback(self._making.discard)
        return await self._answers[key][1]

    @staticmethod
    async def _make(awaited: _Awaited[T], make: Callable[[], Coroutine[Any, Any, T]]) -> None:
        try:
            awaited.set_result(await make())
        except Exception as error:  # noqa: BLE001  # all who wait are told
            awaited.set_exception(error)
