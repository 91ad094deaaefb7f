"""Servers as processes of their own: started, stopped, killed and started again, on a real socket."""

import asyncio
import json
import os
import secrets
import signal
import sys
import tempfile
from collections import deque
from pathlib import Path
from typing import Any, Final, Self

import aiohttp

ROOT = Path(__file__).parent.parent
START_SECONDS = 60.0
KILLS: Final = int(os.environ.get("KILLS", "6"))
"""How many times a crash test kills servers."""
# Compiled modules are kept even where the shell forbids it: a start takes half the time, and there are hundreds.
_PYTHON = {
    "PYTHONUNBUFFERED": "1",
    "PYTHONWARNINGS": "error",
    "PYTHONDONTWRITEBYTECODE": "",
    "PYTHONPYCACHEPREFIX": str(Path(tempfile.gettempdir()) / f"agenthub-pycache-{os.getuid()}"),
}


class Server:
    """One server on one database: `async with Server(uri) as server: server.url`.

    It keeps its port over `kill` and `start`, so that a client finds it again. `lines` holds the latest of its log.
    """

    def __init__(self, mongodb_uri: str | None, *arguments: str, **environment: str) -> None:
        """`arguments` go to `serve`; `environment` holds settings, by their names."""
        self._arguments = arguments
        self._environment = {
            "SECRET_KEY": secrets.token_hex(32),
            "PASSWORD_COST": "cheap",
            "INTROSPECTION": "true",
            "TRUSTED_PROXIES": "127.0.0.1",
            # Tests are many callers at one address.
            "REQUESTS_PER_MINUTE_SIGNED_OUT": "0",
            "MONGODB_DBNAME": "agenthub_test",
            **({"MONGODB_URI": mongodb_uri} if mongodb_uri else {}),
            **environment,
        }
        self._port = "0"
        self._process: asyncio.subprocess.Process | None = None
        self._reading: asyncio.Task[None] | None = None
        self.url = ""
        self.lines: deque[str] = deque(maxlen=10_000)
        self._awaited: list[tuple[str, asyncio.Future[str]]] = []

    @property
    def settings(self) -> dict[str, str]:
        """The settings it runs with."""
        return dict(self._environment)

    @property
    def graphql(self) -> str:
        """Where its GraphQL endpoint is."""
        return f"{self.url}/graphql"

    @property
    def pid(self) -> int:
        """Its process id; of the parent, when it has several workers."""
        assert self._process is not None
        return self._process.pid

    async def __aenter__(self) -> Self:
        try:
            await self.start()
        except BaseException:
            # One that takes too long to start must not outlive the test that gave up on it.
            if self._process and self._process.returncode is None:
                await self.kill()
            raise
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._process and self._process.returncode is None:
            await self.stop()

    async def start(self) -> None:
        """Start it; returns once it takes requests. Fails with its log when it ends instead."""
        self._process = await launch("serve", "--port", self._port, *self._arguments, **self._environment)
        assert self._process.stderr is not None
        said: asyncio.Future[dict[str, Any]] = asyncio.get_running_loop().create_future()
        self._reading = asyncio.create_task(self._read(self._process.stderr, said))
        async with asyncio.timeout(START_SECONDS):
            self.url = (await said)["url"]
            self._port = self.url.rpartition(":")[2]
            await self._answers()

    async def _answers(self) -> None:
        # Its socket takes connections from the first moment on; whoever serves them comes a little later.
        try:
            async with aiohttp.ClientSession() as session, session.get(f"{self.url}/healthz") as response:
                assert response.status == 200
        except aiohttp.ClientError:
            await self.ended()
            raise AssertionError("The server did not start:\n" + "\n".join(self.lines)) from None

    async def stop(self) -> int:
        """Ask it to stop, and give its exit status."""
        self.signal(signal.SIGTERM)
        return await self.ended()

    async def kill(self) -> None:
        """Kill it, with no chance to tidy up."""
        self.signal(signal.SIGKILL)
        await self.ended()

    def says(self, words: str) -> asyncio.Future[str]:
        """Give the line of its log, from now on, that first has these words."""
        line: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        self._awaited.append((words, line))
        return line

    def signal(self, number: signal.Signals) -> None:
        """Send it a signal."""
        assert self._process is not None
        self._process.send_signal(number)

    async def ended(self) -> int:
        """Wait for its end, and give its exit status."""
        """Wait until it has ended, and give its exit status."""
        assert self._process is not None
        assert self._reading is not None
        status = await self._process.wait()
        await self._reading
        # The transport closes in a callback of its own; a warning about it would fail the run.
        self._process._transport.close()  # type: ignore[attr-defined]  # noqa: SLF001  # asyncio has no public way
        return status

    async def _read(self, stderr: asyncio.StreamReader, said: asyncio.Future[dict[str, Any]]) -> None:
        async for line in stderr:
            self.lines.append(line.decode().rstrip())
            for words, awaited in self._awaited:
                if words in self.lines[-1] and not awaited.done():
                    awaited.set_result(self.lines[-1])
            if not said.done() and '"event":"serving"' in self.lines[-1]:
                said.set_result(json.loads(self.lines[-1]))
        if not said.done():
            said.set_exception(AssertionError("The server did not start:\n" + "\n".join(self.lines)))


async def launch(*arguments: str, **environment: str) -> asyncio.subprocess.Process:
    """Run `python -m server` with these arguments and settings; its output is piped, a server's only by its log."""
    return await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "server", *arguments),
        cwd=ROOT,
        env={**os.environ, **_PYTHON, **environment},
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE if arguments[0] != "serve" else asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.PIPE,
        # Several workers' lines may come together.
        limit=2**20,
    )
