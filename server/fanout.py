"""One execution and one encoding of an event for all whose answers are the same."""

import asyncio
from collections import OrderedDict
from collections.abc import Callable, Coroutine, Hashable
from typing import Any, Final, Generic, TypeVar

T = TypeVar("T")

# An event reaches everybody within a burst; who reads it later reads how things are then.
_KEPT_S: Final = 1.0
_MOST: Final = 1000


class FanOut(Generic[T]):
    """The answers to the latest events."""

    def __init__(self) -> None:
        self._answers: OrderedDict[Hashable, tuple[float, asyncio.Task[T]]] = OrderedDict()

    async def answer(self, key: Hashable, make: Callable[[], Coroutine[Any, Any, T]]) -> T:
        """Give the answer under a key, making it once."""
        now = asyncio.get_running_loop().time()
        while self._answers and (len(self._answers) > _MOST or now - next(iter(self._answers.values()))[0] > _KEPT_S):
            self._answers.popitem(last=False)
        if key not in self._answers:
            # In a task of its own: who asked first may leave before it is done.
            self._answers[key] = now, asyncio.create_task(make())
        return await asyncio.shield(self._answers[key][1])
