"""Loaders without a list: any batched read of `models` becomes one loader per (read, parameters) and execution."""

import asyncio
from collections.abc import Awaitable, Callable, Hashable, Mapping, Sequence
from typing import Any, Concatenate, ParamSpec, TypeVar

from graph.execution.batches import Batch

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")
P = ParamSpec("P")

BatchedRead = Callable[Concatenate[Sequence[K], P], Awaitable[Mapping[K, V]]]


class Loaders:
    """The loaders of one execution. For a subscription, an execution is one event."""

    __slots__ = ("_loaders",)

    def __init__(self) -> None:
        self._loaders: dict[Hashable, _Loader] = {}

    async def load(self, read: BatchedRead[K, P, V], key: K, *args: P.args, **kwargs: P.kwargs) -> V | None:
        """Read one key together with all others asked for in the same tick; None where the read has none."""
        which = (read, args, tuple(sorted(kwargs.items()))) if args or kwargs else read
        loader = self._loaders.get(which)
        if loader is None:
            loader = self._loaders[which] = _Loader(lambda keys: read(keys, *args, **kwargs))
        found: Mapping[K, V] = await loader.batch(key)
        return found.get(key)


class _Loader:
    __slots__ = ("_batches", "_filling", "_read", "_reading")

    def __init__(self, read: Callable[[list[Any]], Awaitable[Mapping[Any, Any]]]) -> None:
        self._read = read
        self._batches: dict[Any, Batch] = {}
        self._filling: Batch | None = None
        self._reading: set[asyncio.Task[None]] = set()

    def batch(self, key: Any) -> Batch:  # noqa: ANN401  # of any type that has a hash
        """Find the batch that holds a key, or put it into the one that is being filled."""
        found = self._batches.get(key)
        if found is None:
            found = self._filling
            if found is None:
                found = self._filling = Batch()
                # A task of its own waits for its turn behind all that ask in this tick.
                task = asyncio.create_task(self._fetch(found))
                self._reading.add(task)
                task.add_done_callback(self._reading.discard)
            found.keys.append(key)
            self._batches[key] = found
        return found

    async def _fetch(self, batch: Batch) -> None:
        # Those who ask in tasks of their own are started in this tick too, but may be behind.
        await asyncio.sleep(0)
        self._filling = None
        try:
            found = await self._read(batch.keys)
        except Exception as error:  # noqa: BLE001  # all who wait are told
            batch.set_exception(error)
        else:
            batch.set_result(found)
