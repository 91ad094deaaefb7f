"""The file that declares the organism: read, checked and applied, whenever somebody asks for it."""

import asyncio
from collections.abc import Callable, Sequence
from datetime import datetime
from pathlib import Path

from models.errors import BadInput, Conflict
from models.organism import applying
from models.organism.declaring import Declared, declared
from models.organism.reading import MOST_BYTES
from models.store.database import Row


class OrganismFile:
    """One file; without a path there is none to apply."""

    def __init__(self, path: Path | None, *, applied: Callable[[], None] = lambda: None) -> None:
        """Take the path, and what is called once the file has been `applied`."""
        self.path = path
        self._applied = applied

    async def apply(self, *, now: datetime) -> Sequence[Row]:
        """Make everything as the file declares, and say what that changed.

        Raises `BadInput` with all that is wrong with it, each with its line, and has then changed nothing.
        """
        # In a thread: the largest file takes a second.
        changes = await applying.apply(await asyncio.to_thread(self.read), now=now)
        self._applied()
        return changes

    def read(self) -> Declared:
        """Read the file and check it. Raises `BadInput`, and `Conflict` where there is none."""
        if self.path is None:
            raise Conflict("There is no file to load: ORGANISM_FILE is not set.")
        try:
            with self.path.open("rb") as file:
                content = file.read(MOST_BYTES + 1)
        except OSError as error:
            raise BadInput.at("file", f"The file cannot be read: {error.strerror}.") from None
        return declared(content)
