"""Figures for Prometheus: those of this process, or of all workers together. Each stands where it is measured."""

import os
from typing import Final

from prometheus_client import CONTENT_TYPE_LATEST, REGISTRY, CollectorRegistry, Gauge, generate_latest
from prometheus_client.multiprocess import MultiProcessCollector
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route

from models.store import outbox

SHARED: Final = "PROMETHEUS_MULTIPROC_DIR"
"""The variable by which workers find the directory where they put their figures together."""

_OUTBOX: Final = Gauge(
    "agenthub_outbox_messages", "Messages of the outbox by how far they have come.", ["status"], multiprocess_mode="max"
)


def routes() -> list[BaseRoute]:
    """`/metrics`."""

    async def metrics(_: Request) -> Response:
        for status, count in (await outbox.counts()).items():
            _OUTBOX.labels(status).set(count)
        registry = REGISTRY
        if SHARED in os.environ:
            registry = CollectorRegistry()
            MultiProcessCollector(registry)  # type: ignore[no-untyped-call]  # the library has no types for it
        return Response(
            generate_latest(registry), media_type=CONTENT_TYPE_LATEST, headers={"Cache-Control": "no-store"}
        )

    return [Route("/metrics", metrics)]
