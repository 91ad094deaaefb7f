"""What the commands of the terminal have in common: where they write, their settings, how they run."""

import asyncio
import os
from collections.abc import Coroutine
from pathlib import Path
from typing import Annotated, Any, TypeVar

import typer
import uvloop
from rich.console import Console

from server import logs
from server.settings import Settings, load

T = TypeVar("T")

out = Console(highlight=False, soft_wrap=True)

Uri = Annotated[str | None, typer.Option(help="MongoDB replica set; the embedded database without it.")]
DataDir = Annotated[Path | None, typer.Option(help="Where the embedded database is kept.")]


def settings_of(**given: object) -> Settings:
    """Read the settings, what was given on the command line before the environment.

    It is put into the environment, because that is where worker processes find it.
    """
    os.environ.update({name.upper(): str(value) for name, value in given.items() if value is not None})
    settings = load()
    logs.configure(settings.log_level)
    return settings


def run(work: Coroutine[Any, Any, T]) -> T:
    """Run a command's work to its end."""
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(work)
