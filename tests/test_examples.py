"""The examples run against a real server as a reader would run them."""

import asyncio
import os
import socket
import sys
from pathlib import Path

import aiohttp

from models.store.database import Database
from tests import factories
from tests.client import Client
from tests.processes import ROOT, Server


def on_a_free_port(path: Path) -> Path:
    """Write the file of the examples with an endpoint that is free here."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    path.write_text((ROOT / "examples" / "organism.yaml").read_text().replace(":8765/", f":{port}/"))
    return path


async def test_a_message_goes_round_a_pause_holds_and_a_runaway_is_stopped(
    mongodb_uri: str, bound: Database, session: aiohttp.ClientSession, tmp_path: Path
) -> None:
    file = on_a_free_port(tmp_path / "organism.yaml")
    settings = {
        "MONGODB_DBNAME": "examples",
        "ADMIN_EMAIL": "admin@example.com",
        "ADMIN_PASSWORD": factories.PASSWORD,
        "ORGANISM_FILE": str(file),
        "WEBHOOKS_TO_PRIVATE_ADDRESSES": "true",
    }
    async with Server(mongodb_uri, **settings) as server:
        admin = await factories.sign_in(Client(session, server.graphql), email="admin@example.com")
        given = ("--url", server.url, "--email", admin.email, "--password", factories.PASSWORD)
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "examples", *given), cwd=ROOT, stdout=asyncio.subprocess.PIPE
        )
        async with asyncio.timeout(90):
            output, _ = await process.communicate()

        told = output.decode()
        assert process.returncode == 0, told
        assert "  Admin -> Clerk: question\n  Clerk -> Librarian: question\n  Librarian -> Clerk: answer\n" in told, (
            told
        )
        assert "  Clerk is PAUSED, 3 messages wait.\n" in told
        noted = [line for line in told.splitlines() if line.startswith("Clerk: noted: ")]
        assert noted == [f"Clerk: noted: note {place}" for place in (1, 2, 3)]
        assert told.index("Clerk is PAUSED") < told.index(noted[0])
        assert "  Delivered: note 1, note 2, note 3.\n" in told
        assert "20000 of 20000 tokens:\n  Its token budget is used up.\n" in told
        assert told.count("Stopped by the budget") == 1
        for percent in (75, 90, 95, 100):
            assert told.count(f"Clerk: {percent} % of this thread's tokens are used\n") == 1
        keys = (await admin.client.query("{ apiKeys { revokedAt } }"))["apiKeys"]
        assert len(keys) == 3
        assert all(each["revokedAt"] for each in keys)
    await bound.client.drop_database("examples")


async def test_where_nobody_serves_it_is_said_in_one_line() -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]

    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "examples"),
        cwd=ROOT,
        env={**os.environ, "PORT": str(port)},
        stderr=asyncio.subprocess.PIPE,
    )
    _, told = await process.communicate()

    assert process.returncode == 1
    assert told.decode().splitlines() == [
        f"No AgentHub answers at http://127.0.0.1:{port}. Start one with `make run`, or say where it is with --url."
    ]
