"""Traces: a span for each request and operation, in the trace of who asks, and nothing of what was sent."""

import asyncio
import gzip
from collections.abc import AsyncIterator

import pytest
from aiohttp import web
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.trace.v1.trace_pb2 import Span

from tests.client import Client
from tests.factories import LOGIN, PASSWORD, Person
from tests.listening import listening
from tests.processes import Server

TRACE = "0af7651916cd43dd8448eb211c80319c"


class Collector:
    """Takes traces as an OpenTelemetry collector does."""

    def __init__(self) -> None:
        self.url = ""
        self.raw = b""
        self.spans: list[Span] = []

    async def take(self, request: web.Request) -> web.Response:
        """Take one export."""
        body = await request.read()
        body = gzip.decompress(body) if body.startswith(b"\x1f\x8b") else body
        self.raw += body
        for resource in ExportTraceServiceRequest.FromString(body).resource_spans:
            for scope in resource.scope_spans:
                self.spans.extend(scope.spans)
        return web.Response()


@pytest.fixture
async def collector() -> AsyncIterator[Collector]:
    """Run a collector on a real socket."""
    made = Collector()
    async with listening(made.take) as made.url:
        yield made


async def test_a_request_is_traced_without_what_it_carries(
    client: Client, user: Person, server: Server, mongodb_uri: str, collector: Collector
) -> None:
    async with Server(mongodb_uri, **server.settings | {"OTEL_EXPORTER_OTLP_ENDPOINT": collector.url}) as another:
        there = Client(client.session, another.graphql, user.access_token)
        in_trace = there.with_headers(traceparent=f"00-{TRACE}-b7ad6b7169203331-01")
        await in_trace.query("query Secret { me { email } }")
        await there.query(LOGIN, input={"email": user.email, "password": PASSWORD})
        await there.query(
            f'mutation {{ login(input: {{email: "{user.email}", password: "{PASSWORD}"}}) {{ __typename }} }}'
        )
        await there.get({"query": '{ agent(by: {name: "Hidden name"}) { id } }'})

    requests = ["GET /graphql", *["POST /graphql"] * 3]
    operations = ["mutation login", "mutation login", "query agent", "query me"]
    assert sorted(span.name for span in collector.spans) == requests + operations
    mine = {span.name: span for span in collector.spans if span.trace_id.hex() == TRACE}
    assert mine.keys() == {"POST /graphql", "query me"}
    assert mine["query me"].parent_span_id == mine["POST /graphql"].span_id
    for secret in (PASSWORD, user.email, "Hidden name", user.access_token):
        assert secret.encode() not in collector.raw


async def test_a_collector_that_is_away_holds_nothing_up(
    client: Client, user: Person, server: Server, mongodb_uri: str
) -> None:
    nowhere = {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:9"}
    async with Server(mongodb_uri, **server.settings | nowhere) as another:
        there = Client(client.session, another.graphql, user.access_token)
        for _ in range(20):
            await there.query("{ me { id } }")
        async with asyncio.timeout(15):
            assert await another.stop() == 0
