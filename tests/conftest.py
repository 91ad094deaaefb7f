"""One mongod per run, an emptied database at each test's set-up, one server on a real socket."""

from collections.abc import AsyncIterator

import aiohttp
import pytest

from models.store import database
from models.store.database import Database
from server.application import DOCUMENTS
from server.mongod import Mongod
from tests import factories
from tests.client import Client
from tests.factories import Person
from tests.processes import Server


@pytest.fixture(scope="session")
async def mongodb_uri(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[str]:
    """Give the address of the run's own mongod."""
    async with Mongod(tmp_path_factory.mktemp("mongod")) as mongod:
        yield mongod.uri


@pytest.fixture(scope="session")
async def bound(mongodb_uri: str) -> AsyncIterator[Database]:
    """Bind the documents in this process too, so that tests can call `models` directly."""
    async with database.connect(mongodb_uri, "agenthub_test", DOCUMENTS) as opened:
        yield opened


@pytest.fixture(scope="session")
async def server(mongodb_uri: str, bound: Database) -> AsyncIterator[Server]:
    """Run the server of this run; a test that kills one starts its own."""
    async with Server(mongodb_uri) as running:
        yield running


@pytest.fixture(scope="session")
async def session() -> AsyncIterator[aiohttp.ClientSession]:
    """Share connections among clients, and nothing else: cookies are kept by none."""
    async with aiohttp.ClientSession(cookie_jar=aiohttp.DummyCookieJar()) as shared:
        yield shared


@pytest.fixture
async def store(bound: Database) -> Database:
    """Give the database, emptied. Numbers go on, since the server has seen the last ones already."""
    await bound.empty(keep=["sequences"])
    return bound


@pytest.fixture
async def client(server: Server, session: aiohttp.ClientSession, store: Database) -> Client:
    """Give a client for whom nobody is signed in."""
    return Client(session, server.graphql)


@pytest.fixture
async def admin(client: Client) -> Person:
    """Give the first admin, signed in."""
    return await factories.sign_in_admin(client)


@pytest.fixture
async def user(client: Client) -> Person:
    """Give a person who has registered."""
    return await factories.sign_up(client, email="user@example.com")


@pytest.fixture
async def another_user(client: Client) -> Person:
    """Give a second person."""
    return await factories.sign_up(client, email="another@example.com")
