"""Figures for Prometheus, from one process and from several."""

import asyncio

import aiohttp
import pytest
from prometheus_client.parser import text_string_to_metric_families

from tests.client import Client
from tests.factories import Person
from tests.processes import Server
from tests.test_alerts import rule
from tests.test_sockets import ALERTS
from tests.test_usage import collect, event


async def figures(session: aiohttp.ClientSession, server: Server) -> dict[tuple[str, ...], float]:
    """Read the figures, by name and the values of labels in the order of their names."""
    async with session.get(f"{server.url}/metrics") as response:
        assert response.status == 200
        assert response.headers["Content-Type"].startswith("text/plain")
        text = await response.text()
    return {
        (sample.name, *(value for _, value in sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


@pytest.mark.parametrize("workers", ["1", "2"])
async def test_what_happens_is_counted(
    *, client: Client, admin: Person, server: Server, mongodb_uri: str, session: aiohttp.ClientSession, workers: str
) -> None:
    await rule(admin, channels=["EMAIL"], threshold="1")
    async with Server(mongodb_uri, **server.settings | {"METRICS": "true", "WORKERS": workers}) as another:
        there = Client(session, another.graphql, admin.access_token)
        await asyncio.gather(*(there.query("{ me { id } }") for _ in range(10)))
        await there.execute("{ nothing }")
        await there.execute('{ agent(by: {id: "x"}) { id } }')
        await there.query("{ me { id } agents { totalCount } }")
        await collect(there, event("1"), event("1"), event("2", promptTokens=-1))
        async with there.socket() as socket:
            await socket.initialise(admin.access_token)
            await socket.subscribe("1", ALERTS)
            await socket.send({"type": "ping"})
            await socket.receive()
            for _ in range(200):
                found = await figures(session, another)
                if found["agenthub_outbox_messages", "WITHDRAWN"]:
                    break
                await asyncio.sleep(0.1)

    assert found["agenthub_operation_seconds_count", "me"] == 10
    assert found["agenthub_operation_seconds_count", "several"] == 1
    assert found["agenthub_operation_errors_total", "BAD_USER_INPUT", "agent"] == 1
    items = {
        outcome: found["agenthub_usage_items_total", "event", outcome]
        for outcome in ("accepted", "duplicate", "rejected")
    }
    assert items == {"accepted": 1, "duplicate": 1, "rejected": 1}
    assert found["agenthub_commit_weight_count",] == 1
    assert found["agenthub_open_streams",] >= 1
    assert found["agenthub_last_number", "Alert"] >= 1
    assert ("agenthub_change_stream_lag_seconds",) in found
    assert not [name for name in found if "nothing" in name]


async def test_figures_are_shown_only_where_they_are_switched_on(
    server: Server, session: aiohttp.ClientSession
) -> None:
    async with session.get(f"{server.url}/metrics") as response:
        assert response.status == 404


async def test_figures_are_for_who_sends_the_token(mongodb_uri: str, session: aiohttp.ClientSession) -> None:
    token = "figures-for-prometheus"
    statuses = []
    async with Server(mongodb_uri, METRICS="true", METRICS_TOKEN=token) as another:
        for given in ({}, {"Authorization": "Bearer figures-for-nobody!"}, {"Authorization": f"Bearer {token}"}):
            async with session.get(f"{another.url}/metrics", headers=given) as response:
                statuses.append(response.status)

    assert statuses == [401, 401, 200]
