"""Alive and ready, for process managers and load balancers; open to everyone, so it names no host and no cause."""

from collections.abc import Sequence

from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import BaseRoute, Route

from models.errors import ServiceUnavailable
from models.store.database import Database

_HEADERS = {"Cache-Control": "no-store", "X-Content-Type-Options": "nosniff"}


def routes(database: Database) -> Sequence[BaseRoute]:
    """`/healthz`: the process runs. `/readyz`: it can do its work."""

    async def alive(_: Request) -> JSONResponse:
        return JSONResponse({"status": "ok"}, headers=_HEADERS)

    async def ready(_: Request) -> JSONResponse:
        try:
            await database.ping()
        except ServiceUnavailable:
            body = {"status": "unavailable", "parts": {"database": "unavailable"}}
            return JSONResponse(body, status_code=503, headers=_HEADERS)
        return JSONResponse({"status": "ok", "parts": {"database": "ok"}}, headers=_HEADERS)

    return [Route("/healthz", alive), Route("/readyz", ready)]
