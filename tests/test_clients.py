"""Clients that people use, from npm, against a live server: `make test-clients` installs and runs them."""

import asyncio
import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from tests.client import Client
from tests.factories import PASSWORD, Person
from tests.processes import Server
from tests.test_alerts import rule
from tests.test_usage import collect, event

CLIENTS = Path(__file__).parent / "clients"
PATIENCE_SECONDS = 60

pytestmark = pytest.mark.skipif(
    shutil.which("node") is None or not (CLIENTS / "node_modules").is_dir(),
    reason="needs Node 20 and `make test-clients`, which installs the clients",
)


@asynccontextmanager
async def node(script: str, *arguments: str) -> AsyncIterator[asyncio.subprocess.Process]:
    """Run a script; it must end by itself, and well."""
    process = await asyncio.create_subprocess_exec(
        "node", CLIENTS / script, *arguments, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE
    )
    try:
        yield process
        async with asyncio.timeout(PATIENCE_SECONDS):
            status = await process.wait()
    finally:
        if process.returncode is None:
            process.kill()
    assert process.stderr is not None
    assert status == 0, (await process.stderr.read()).decode()


async def said(process: asyncio.subprocess.Process, line: str) -> None:
    """Wait until a script has said something."""
    assert process.stdout is not None
    async with asyncio.timeout(PATIENCE_SECONDS):
        while (heard := (await process.stdout.readline()).decode().rstrip("\n")) != line:
            if not heard:
                assert process.stderr is not None
                raise AssertionError((await process.stderr.read()).decode())


async def test_every_audit_of_graphql_over_http_passes(server: Server, client: Client) -> None:
    async with node("audits.mjs", server.graphql) as audits:
        assert audits.stdout is not None
        lines = (await audits.stdout.read()).decode().splitlines()

    assert lines == ["61 of 61"]


@pytest.mark.parametrize("name", ["graphql-ws", "graphql-sse", "apollo", "urql"])
async def test_a_client_signs_in_asks_changes_watches_and_comes_back(
    *, admin: Person, client: Client, server: Server, mongodb_uri: str, name: str
) -> None:
    await rule(admin, threshold="1")
    async with Server(mongodb_uri, **server.settings) as another:
        there = Client(client.session, another.graphql, admin.access_token)
        async with node(f"{name}.mjs", another.graphql, admin.email, PASSWORD) as script:
            for step in ("query", "mutation", "subscribed"):
                await said(script, step)
            await collect(there, event("1", agent={"name": "First"}))
            await said(script, "alert First")

            await another.stop()
            if name in {"apollo", "urql"}:
                # These subscribe anew when they come back, and hear what comes from then on.
                await another.start()
                await said(script, "again")
                await collect(there, event("2", agent={"name": "Second"}))
            else:
                # These resume after the last alert they saw: what was raised meanwhile comes too.
                await collect(admin.client, event("2", agent={"name": "Second"}))
                await another.start()
            await said(script, "alert Second")
