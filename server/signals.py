"""What signals ask of a process: to end its streams, to apply the organism's file again, to stop."""

import asyncio
import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from types import FrameType
from typing import Final

import structlog

from models.errors import AgentHubError, BadInput
from models.organism.file import OrganismFile

# So long a process goes on after it was asked by one of its clients to stop: the answer leaves first.
_BEFORE_STOP_S: Final = 0.5

log = structlog.get_logger()


@contextmanager
def told_of_the_end(stopping: asyncio.Event) -> Iterator[None]:
    """Set `stopping` when the process is asked to stop.

    uvicorn closes WebSockets itself, but waits for HTTP answers without telling them; a stream would never end.
    """
    loop = asyncio.get_running_loop()
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}

    def tell(number: int, frame: FrameType | None) -> None:
        loop.call_soon_threadsafe(stopping.set)
        handler = before[signal.Signals(number)]
        if callable(handler):
            handler(number, frame)

    with _handled({number: tell for number, handler in before.items() if callable(handler)}):
        yield


@contextmanager
def reloading(organism: OrganismFile) -> Iterator[None]:
    """Have SIGHUP apply the organism's file, where there is one; without, it ends a process as ever."""
    if organism.path is None:
        yield
        return
    loop = asyncio.get_running_loop()
    had_terminal = _has_terminal()
    running: set[asyncio.Task[None]] = set()

    def start() -> None:
        task = asyncio.create_task(_apply(organism))
        running.add(task)
        task.add_done_callback(running.discard)

    def hang_up(_: int, __: FrameType | None) -> None:
        # A terminal that is closed says the same to all that was started in it.
        if had_terminal and not _has_terminal():
            signal.raise_signal(signal.SIGTERM)
        else:
            loop.call_soon_threadsafe(start)

    with _handled({signal.SIGHUP: hang_up}):
        yield


def stop_soon(processes: int) -> int:
    """Have the whole server stop as SIGTERM stops it, its other workers too; give how many processes that are."""
    parent = multiprocessing.parent_process()
    server = os.getpid() if parent is None or parent.pid is None else parent.pid
    asyncio.get_running_loop().call_later(_BEFORE_STOP_S, os.kill, server, signal.SIGTERM)
    return processes


@contextmanager
def _handled(handlers: dict[signal.Signals, Callable[[int, FrameType | None], None]]) -> Iterator[None]:
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.signal(number, handler) for number, handler in handlers.items()}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _has_terminal() -> bool:
    try:
        os.close(os.open("/dev/tty", os.O_RDWR | os.O_NOCTTY))
    except OSError:
        return False
    return True


async def _apply(organism: OrganismFile) -> None:
    try:
        changes = await organism.apply(now=datetime.now(UTC))
    except BadInput as error:
        log.error("organism not applied", faults=[fault.message for fault in error.faults])  # noqa: TRY400  # said in full
    except AgentHubError as error:
        log.error("organism not applied", faults=[error.message])  # noqa: TRY400  # as above
    else:
        log.info("organism applied", changes=len(changes))
