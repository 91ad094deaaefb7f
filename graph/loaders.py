"""Loaders without a list: any batched read of `models` becomes one loader per (read, parameters) and execution."""

from collections.abc import Awaitable, Callable, Hashable, Mapping, Sequence
from typing import Any, Concatenate, ParamSpec, TypeVar

from strawberry.dataloader import DataLoader

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")
P = ParamSpec("P")

BatchedRead = Callable[Concatenate[Sequence[K], P], Awaitable[Mapping[K, V]]]


class Loaders:
    """The loaders of one execution. For a subscription, an execution is one event."""

    __slots__ = ("_loaders",)

    def __init__(self) -> None:
        self._loaders: dict[Hashable, DataLoader[Any, Any]] = {}

    async def load(self, read: BatchedRead[K, P, V], key: K, *args: P.args, **kwargs: P.kwargs) -> V | None:
        """Read one key together with all others asked for in the same tick; None where the read has none."""
        which = (read, args, tuple(sorted(kwargs.items())))
        loader = self._loaders.get(which)
        if loader is None:

            async def load_all(keys: list[K]) -> list[V | None]:
                found = await read(keys, *args, **kwargs)
                return [found.get(each) for each in keys]

            loader = self._loaders[which] = DataLoader(load_fn=load_all)
        value: V | None = await loader.load(key)
        return value
