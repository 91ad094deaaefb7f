"""The process: what it refuses to start with, how it answers for its health, how it stops."""

import asyncio
import os
import secrets
import signal
import stat
from contextlib import suppress
from pathlib import Path

import aiohttp
import pytest

from models.errors import Refused
from models.store.database import Database
from server.mongod import Mongod
from server.settings import Settings, load
from tests.client import Client, Reply
from tests.factories import PASSWORD, Person, sign_in
from tests.processes import Server, launch
from tests.test_usage import collect, event

ALERTS = "subscription { thresholdAlerts { __typename } }"


async def refusal(*arguments: str, **environment: str) -> str:
    """Start a server that must not start, and give the one line that says why."""
    process = await launch(*arguments, **environment)
    assert process.stderr is not None
    said = (await process.stderr.read()).decode()
    assert await process.wait() == 1
    assert said.count("\n") == 1, said
    return said


# ---------------------------------------------------------------- settings


@pytest.mark.parametrize(
    ("name", "value", "reason"),
    [
        ("PORT", "many", "integer"),
        ("PORT", "70000", "less than or equal to 65535"),
        ("TIME_ZONE", "Mars/Olympus", "no such time zone"),
        ("ALGORITHM", "none", "HS256"),
        ("ALLOWED_ORIGINS", "*", "a scheme and a host"),
        ("ALLOWED_ORIGINS", "https://a.example/path", "a scheme and a host"),
        ("MONGODB_DBNAME", "a/b", "pattern"),
        ("ACCESS_TOKEN_EXPIRE_MINUTES", "0", "greater than or equal to 1"),
        ("TOKEN_USAGE_THRESHOLD", "-1", "greater than or equal to 0"),
        ("MAILGUN_BASE_URL", "ftp://x", "pattern"),
        ("PASSWORD_COST", "free", "standard"),
    ],
)
def test_a_bad_value_is_named_in_one_line(
    monkeypatch: pytest.MonkeyPatch, *, name: str, value: str, reason: str
) -> None:
    monkeypatch.setenv(name, value)

    with pytest.raises(Refused) as refused:
        load()

    assert name in str(refused.value)
    assert reason in str(refused.value)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize(
    ("key", "reason"),
    [
        ("", "not set"),
        ("tooshort1", "too short"),
        ("x" * 64, "guessed"),
        ("your-secret-key-change-in-production", "guessed"),
        ("09d25e094faa6ca2556c818166b7a9563b93f7099f6f0f4caa6cf63b88e8d3e7", "guessed"),
    ],
)
def test_a_default_secret_is_refused(monkeypatch: pytest.MonkeyPatch, key: str, reason: str) -> None:
    monkeypatch.setenv("SECRET_KEY", key)

    with pytest.raises(Refused) as refused:
        load().signing_key()

    assert "SECRET_KEY" in str(refused.value)
    assert reason in str(refused.value)
    assert not key or key not in str(refused.value)


async def test_without_a_secret_nothing_is_started(tmp_path: Path) -> None:
    said = await refusal("serve", "--port", "0", "--data-dir", str(tmp_path / "data"), SECRET_KEY="")

    assert said.startswith("agenthub: SECRET_KEY is not set.")
    assert not (tmp_path / "data").exists()


def test_the_demo_makes_a_secret_and_keeps_it_to_itself(tmp_path: Path) -> None:
    demo = Settings(demo=True, data_dir=tmp_path / "data")

    first, second = demo.signing_key(), demo.signing_key()

    assert first == second
    assert len(first) == 64
    assert stat.S_IMODE((tmp_path / "data" / "secret.key").stat().st_mode) == 0o600
    assert [path.name for path in (tmp_path / "data").iterdir()] == ["secret.key"]


def test_the_demo_opens_playground_and_introspection(monkeypatch: pytest.MonkeyPatch) -> None:
    assert not Settings().playground
    assert not Settings().introspection

    monkeypatch.setenv("DEMO", "true")
    assert Settings().playground
    assert Settings().introspection

    monkeypatch.setenv("INTROSPECTION", "false")
    assert not Settings().introspection


def test_a_secret_may_stand_in_a_file(tmp_path: Path) -> None:
    secret = secrets.token_hex(32)
    (tmp_path / "key").write_text(f"{secret}\n")

    assert Settings(secret_key_file=tmp_path / "key").signing_key() == secret


def test_secrets_do_not_show(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("SECRET_KEY", "MONGODB_URI", "MAILGUN_API_KEY", "SECRET_KEY_OLDER"):
        monkeypatch.setenv(name, "mongodb://hidden")

    assert "hidden" not in repr(Settings())


def test_every_setting_is_described() -> None:
    assert all(field.description for field in Settings.model_fields.values())


# ---------------------------------------------------------------- starting


async def test_an_unreachable_database_is_one_line() -> None:
    said = await refusal(
        "serve",
        "--port",
        "0",
        SECRET_KEY=secrets.token_hex(32),
        MONGODB_URI="mongodb://u:hidden@127.0.0.1:1/?timeoutMS=500",
    )

    assert "No MongoDB answers at 127.0.0.1:1" in said
    assert "hidden" not in said


async def test_a_taken_port_is_one_line(server: Server) -> None:
    said = await refusal("serve", "--port", server.url.rpartition(":")[2], **server.settings)

    assert "PORT" in said
    assert "in use" in said


async def test_half_an_admin_is_refused(server: Server) -> None:
    said = await refusal("serve", "--port", "0", ADMIN_EMAIL="a@example.com", **server.settings)

    assert "ADMIN_EMAIL and ADMIN_PASSWORD" in said


async def test_the_first_admin_comes_from_the_environment(
    client: Client, mongodb_uri: str, session: aiohttp.ClientSession
) -> None:
    async with Server(mongodb_uri, ADMIN_EMAIL="first@example.com", ADMIN_PASSWORD=PASSWORD) as another:
        admin = await sign_in(Client(session, another.graphql), email="first@example.com")

    assert admin.email == "first@example.com"


async def said_by(*arguments: str, **environment: str) -> str:
    """Run a command to its good end, and give what it printed."""
    process = await launch(*arguments, **environment)
    said, complaints = await process.communicate()
    assert process.returncode == 0, complaints.decode()
    return said.decode()


async def test_an_admin_comes_from_the_command_line(client: Client, server: Server) -> None:
    arguments = ("create-admin", "--email", "boss@example.com")

    await said_by(*arguments, ADMIN_PASSWORD=PASSWORD, **server.settings)

    boss = await sign_in(client, email="boss@example.com")
    assert await boss.client.query("{ me { role } }") == {"me": {"role": "ADMIN"}}
    again = await refusal(*arguments, ADMIN_PASSWORD=PASSWORD, **server.settings)
    assert "There is an account with this e-mail already." in again


async def test_a_key_comes_from_the_command_line(client: Client, server: Server, user: Person) -> None:
    arguments = ("create-key", "--name", "collector", "--scope", "READ", "--owner")

    secret = (await said_by(*arguments, user.email, **server.settings)).strip()

    document = "{ agents { totalCount } }"
    assert await client.with_token(secret).query(document) == {"agents": {"totalCount": 0}}
    assert "no account" in await refusal(*arguments, "nobody@example.com", **server.settings)
    assert "Only an admin" in await refusal(*arguments, user.email, "--scope", "MANAGE", **server.settings)


async def test_help_names_the_command_that_people_type(server: Server) -> None:
    assert "Usage: agenthub rebuild cost [OPTIONS]" in await said_by("rebuild", "cost", "--help", **server.settings)


async def test_usage_is_rebuilt_from_the_command_line(store: Database, server: Server) -> None:
    assert "0 events, 0 figures differed." in await said_by("rebuild", "usage", "--check", **server.settings)


async def test_allowed_pages_may_use_the_service_and_no_others(
    *, client: Client, mongodb_uri: str, session: aiohttp.ClientSession, server: Server, user: Person
) -> None:
    friend, stranger = "https://hub.example", "https://evil.example"
    settings = server.settings | {"ALLOWED_ORIGINS": f"{friend}, https://other.example", "LOG_LEVEL": "debug"}
    preflight = {"Access-Control-Request-Method": "POST", "Access-Control-Request-Headers": "content-type"}
    async with Server(mongodb_uri, **settings) as another:
        there = Client(session, another.graphql, headers={"Cookie": f"agenthub={user.access_token}"})
        asked = {
            origin: await there.send("OPTIONS", headers={**preflight, "Origin": origin})
            for origin in (friend, stranger)
        }
        replies = {
            origin: await there.with_headers(Origin=origin).execute("{ me { email } }") for origin in (friend, stranger)
        }
        async with there.socket(Origin=friend) as socket:
            await socket.initialise()
        wrong = {"email": user.email, "password": "a password that nobody has"}
        login = "mutation ($input: LoginInput!) { login(input: $input) { __typename } }"
        assert (await there.execute(login, {"input": wrong})).codes == ["UNAUTHENTICATED"]

    assert asked[friend].headers["Access-Control-Allow-Origin"] == friend
    assert asked[friend].headers["Access-Control-Allow-Credentials"] == "true"
    assert "Access-Control-Allow-Origin" not in asked[stranger].headers
    assert replies[friend].body == {"data": {"me": {"email": user.email}}}
    assert {"Accept", "Origin"} <= {name.strip() for name in replies[friend].headers["Vary"].split(",")}
    assert replies[stranger].status == 403
    # Not even the most talkative log holds what must stay secret.
    log = "\n".join(another.lines)
    assert '"event":"request"' in log
    assert not [secret for secret in (user.access_token, wrong["password"], settings["SECRET_KEY"]) if secret in log]


async def test_the_embedded_database_is_started_and_stopped(tmp_path: Path, session: aiohttp.ClientSession) -> None:
    data = tmp_path / "data"
    async with Server(None, "--data-dir", str(data)) as server:
        assert await Client(session, server.graphql).query("{ __typename }") == {"__typename": "Query"}
        assert await server.stop() == 0

    assert (data / "database" / "mongod.lock").read_text() == ""


async def test_workers_share_the_port(mongodb_uri: str, session: aiohttp.ClientSession) -> None:
    async with Server(mongodb_uri, "--workers", "2") as server:
        client = Client(session, server.graphql)

        assert await client.query("{ __typename }") == {"__typename": "Query"}
        assert await server.stop() == 0


async def test_a_worker_that_cannot_start_is_told_of_by_the_exit_status(mongodb_uri: str, tmp_path: Path) -> None:
    trusted = tmp_path / "trusted.json"
    trusted.write_text("{}")
    async with Server(
        mongodb_uri, "--workers", "2", TRUSTED_DOCUMENTS=str(trusted), TRUSTED_DOCUMENTS_MODE="require"
    ) as server:
        trusted.unlink()
        os.kill(children(server.pid)[-1], signal.SIGKILL)

        assert await asyncio.wait_for(server.ended(), 30) == 1, [*server.lines]
        assert "agenthub: A worker could not start" in server.lines[-1]


def children(pid: int) -> list[int]:
    """Give the workers of a parent; a process that keeps track of resources is none."""
    lists = Path(f"/proc/{pid}/task").glob("*/children")
    found = [int(each) for path in lists for each in path.read_text().split()]
    return [each for each in found if b"spawn_main" in Path(f"/proc/{each}/cmdline").read_bytes()]


# ---------------------------------------------------------------- health


async def get(session: aiohttp.ClientSession, url: str) -> Reply:
    async with session.get(url) as response:
        return Reply(response.status, response.headers, await response.read())


async def test_a_server_is_alive_and_ready(server: Server, session: aiohttp.ClientSession) -> None:
    assert (await get(session, f"{server.url}/healthz")).body == {"status": "ok"}
    assert (await get(session, f"{server.url}/readyz")).body == {
        "status": "ok",
        "parts": {"database": "ok", "changeStream": "ok", "process": "ok"},
    }


async def test_without_its_database_a_server_is_alive_and_not_ready(
    tmp_path: Path, session: aiohttp.ClientSession
) -> None:
    async with Mongod(tmp_path / "data") as mongod, Server(mongod.uri) as server:
        client = Client(session, server.graphql)
        os.kill(mongod.pid, signal.SIGSTOP)
        try:
            assert (await get(session, f"{server.url}/healthz")).status == 200
            ready = await get(session, f"{server.url}/readyz")
            reply = await client.execute(
                "mutation ($i: LoginInput!) { login(input: $i) { __typename } }",
                {"i": {"email": "a@example.com", "password": PASSWORD}},
            )
        finally:
            os.kill(mongod.pid, signal.SIGCONT)

    assert ready.status == 503
    assert ready.body == {
        "status": "unavailable",
        "parts": {"database": "unavailable", "changeStream": "unavailable", "process": "ok"},
    }
    assert reply.status == 503
    assert reply.codes == ["SERVICE_UNAVAILABLE"]
    assert reply.headers["Retry-After"] == "1"


# ---------------------------------------------------------------- stopping


async def test_a_stop_ends_sockets_and_streams_and_finishes_requests(
    *, client: Client, mongodb_uri: str, session: aiohttp.ClientSession, user: Person, server: Server
) -> None:
    async with Server(mongodb_uri, SECRET_KEY=server.settings["SECRET_KEY"]) as another:
        there = Client(session, another.graphql, token=user.access_token)
        async with there.socket() as socket, there.stream(ALERTS) as stream:
            await socket.initialise(user.access_token)
            await socket.subscribe("1", ALERTS)
            await socket.send({"type": "ping"})
            assert await socket.receive() == {"type": "pong"}

            stopped = asyncio.create_task(another.stop())

            assert (await socket.until_closed()).code == 1001
            # No `complete`: the client is to come back.
            assert [event async for event in stream.events()] == []
        assert await stopped == 0
        assert not [line for line in another.lines if '"level":"error"' in line]


@pytest.mark.parametrize("workers", ["1", "2"])
async def test_a_stop_under_load_loses_nothing_acknowledged(
    *, mongodb_uri: str, session: aiohttp.ClientSession, user: Person, server: Server, store: Database, workers: str
) -> None:
    settings = server.settings | {"WORKERS": workers}
    accepted: list[str] = []
    busy = asyncio.Event()
    async with Server(mongodb_uri, **settings) as another:
        there = Client(session, another.graphql, token=user.access_token)

        async def report(sender: int) -> None:
            with suppress(aiohttp.ClientError):
                for number in range(10_000):
                    key = f"{sender}-{number}"
                    answer = await collect(there, event(key))
                    accepted.extend([key] * answer["accepted"])
                    if len(accepted) > 100:
                        busy.set()

        senders = [asyncio.create_task(report(sender)) for sender in range(8)]
        async with asyncio.timeout(30):
            await busy.wait()
            assert await another.stop() == 0
            await asyncio.gather(*senders)

    stored = await store.handle["usage_events"].count_documents({})
    assert stored >= len(accepted) >= 100
    agent = await store.handle["agents"].find_one({"name": "Scout"})
    assert agent is not None
    assert agent["usage"]["requests"] == stored


async def test_a_killed_server_comes_back_where_it_was(
    client: Client, mongodb_uri: str, session: aiohttp.ClientSession
) -> None:
    async with Server(mongodb_uri) as another:
        before = another.url
        await another.kill()
        await another.start()

        assert another.url == before
        assert await Client(session, another.graphql).query("{ __typename }") == {"__typename": "Query"}
