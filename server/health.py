"""Alive and ready, for process managers and load balancers; open to everyone, so it names no host and no cause."""

import asyncio
from collections.abc import Sequence

from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import BaseRoute, Route

from models.errors import ServiceUnavailable
from models.store.database import Database
from models.store.live import Live

_HEADERS = {"Cache-Control": "no-store", "X-Content-Type-Options": "nosniff"}


def routes(database: Database, live: Live, stopping: asyncio.Event) -> Sequence[BaseRoute]:
    """`/healthz`: the process runs. `/readyz`: it can do its work, or which part of it cannot."""

    async def alive(_: Request) -> JSONResponse:
        return JSONResponse({"status": "ok"}, headers=_HEADERS)

    async def ready(_: Request) -> JSONResponse:
        try:
            await database.ping()
        except ServiceUnavailable:
            answers = False
        else:
            answers = True
        fit = {"database": answers, "changeStream": answers and live.is_watching, "process": not stopping.is_set()}
        # Without the change stream alerts come two seconds late: worth saying, no reason to send nobody here.
        is_ready = fit["database"] and fit["process"]
        body = {
            "status": "ok" if is_ready else "unavailable",
            "parts": {part: "ok" if is_fit else "unavailable" for part, is_fit in fit.items()},
        }
        return JSONResponse(body, status_code=200 if is_ready else 503, headers=_HEADERS)

    return [Route("/healthz", alive), Route("/readyz", ready)]
