"""An exact number of requests over n connections to 127.0.0.1, and what they cost the process that answers."""

import asyncio
import os
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Self

import aiohttp

_TICKS: Final = os.sysconf("SC_CLK_TCK")
_PATIENCE: Final = aiohttp.ClientTimeout(total=30)


class WrongAnswer(Exception):
    """An answer that is not the right one; a figure made of such answers would mean nothing."""


@dataclass(frozen=True, slots=True)
class Sample:
    """One run: how fast, and CPU milliseconds (user and system) of the answering process for each request."""

    per_second: float
    cpu_ms: float


def cpu_ms(pid: int) -> float:
    """Read the CPU time that a process has used, user and system, in milliseconds (steps of 10)."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) * 1000 / _TICKS


class Caller:
    """Sends requests with one credential; an async context manager that holds the connections."""

    def __init__(self, token: str = "") -> None:
        self._headers = {"Content-Type": "application/json"}
        if token:
            self._headers["Authorization"] = f"Bearer {token}"

    async def __aenter__(self) -> Self:
        self._session = aiohttp.ClientSession(
            headers=self._headers,
            timeout=_PATIENCE,
            connector=aiohttp.TCPConnector(limit=0),
            cookie_jar=aiohttp.DummyCookieJar(),
        )
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._session.close()

    async def post(self, url: str, body: bytes) -> bytes:
        """Send one request. Raises `WrongAnswer` for a status that is not 200."""
        async with self._session.post(url, data=body) as response:
            content = await response.read()
            if response.status != 200:
                raise WrongAnswer(f"{response.status} {content[:500]!r}")
            return content

    async def drive(
        self, url: str, bodies: Iterable[bytes], *, callers: int, is_right: Callable[[bytes], bool]
    ) -> float:
        """Send all bodies, `callers` at a time; gives the seconds that took. Raises `WrongAnswer`."""
        waiting = iter(bodies)
        started = time.perf_counter()
        async with asyncio.TaskGroup() as tasks:
            for _ in range(callers):
                tasks.create_task(self._call(url, waiting, is_right))
        return time.perf_counter() - started

    async def _call(self, url: str, waiting: Iterator[bytes], is_right: Callable[[bytes], bool]) -> None:
        for body in waiting:
            answer = await self.post(url, body)
            if not is_right(answer):
                raise WrongAnswer(repr(answer[:500]))

    async def sample(
        self, url: str, bodies: list[bytes], *, pid: int, callers: int, is_right: Callable[[bytes], bool]
    ) -> Sample:
        """Send all bodies and say what they took of time and of the CPU of process `pid`."""
        before = cpu_ms(pid)
        seconds = await self.drive(url, bodies, callers=callers, is_right=is_right)
        return Sample(len(bodies) / seconds, (cpu_ms(pid) - before) / len(bodies))
