"""Figures for Prometheus: those of this process, or of all workers together. Each stands where it is measured."""

import asyncio
import hmac
import os
from pathlib import Path
from typing import Final

import structlog
from prometheus_client import CONTENT_TYPE_LATEST, REGISTRY, CollectorRegistry, Gauge, generate_latest
from prometheus_client.multiprocess import MultiProcessCollector, mark_process_dead
from pydantic import SecretStr
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import BaseRoute, Route

from models.store import outbox
from models.store.database import DatabaseError

log = structlog.get_logger()

_PATIENCE_S: Final = 1.0

SHARED: Final = "PROMETHEUS_MULTIPROC_DIR"
"""The variable by which workers find the directory where they put their figures together."""

_OUTBOX: Final = Gauge(
    "agenthub_outbox_messages",
    "Messages of the outbox by how far they have come.",
    ["status"],
    multiprocess_mode="mostrecent",
)


def _forget_the_dead(directory: Path) -> None:
    """Drop the gauges of workers that were killed: what they held open is not open any more."""
    for pid in {int(path.stem.rpartition("_")[2]) for path in directory.glob("gauge_live*.db")}:
        if not Path(f"/proc/{pid}").exists() and Path("/proc/self").exists():
            mark_process_dead(pid)  # type: ignore[no-untyped-call]  # the library has no types for it


def routes(token: SecretStr | None) -> list[BaseRoute]:
    """`/metrics`, for who sends `token`; for everyone where there is none."""
    wanted = f"Bearer {token.get_secret_value()}".encode() if token else None

    async def metrics(request: Request) -> Response:
        if wanted and not hmac.compare_digest(request.headers.get("Authorization", "").encode(), wanted):
            return PlainTextResponse(
                "Send METRICS_TOKEN as a Bearer token.\n", status_code=401, headers={"WWW-Authenticate": "Bearer"}
            )
        try:
            async with asyncio.timeout(_PATIENCE_S):
                for status, count in (await outbox.counts()).items():
                    _OUTBOX.labels(status).set(count)
        except (DatabaseError, TimeoutError) as error:
            # The other figures are wanted all the more.
            log.warning("metrics: the outbox cannot be counted", error=type(error).__name__)
        registry = REGISTRY
        if SHARED in os.environ:
            _forget_the_dead(Path(os.environ[SHARED]))
            registry = CollectorRegistry()
            MultiProcessCollector(registry)  # type: ignore[no-untyped-call]  # the library has no types for it
        return Response(
            generate_latest(registry), media_type=CONTENT_TYPE_LATEST, headers={"Cache-Control": "no-store"}
        )

    return [Route("/metrics", metrics)]
