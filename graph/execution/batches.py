"""What a batched read will answer: one future for all who wait for it, whoever drives them."""

import asyncio
from collections.abc import Mapping
from typing import Any


class Batch(asyncio.Future[Mapping[Any, Any]]):
    """The answer to a read of many keys, as a mapping from key to value."""

    def __init__(self) -> None:
        super().__init__()
        self.keys: list[Any] = []

    def cancel(self, msg: object = None) -> bool:  # noqa: ARG002  # as the base class has it
        """Refuse: others wait too. A task that is cancelled while it waits here ends as soon as the answer is there."""
        return False
