"""What a request shows of itself: its id, where it comes from, and the cookie or header that says who asks."""

import re
import uuid
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Final
from urllib.parse import urlsplit

from starlette.datastructures import Headers
from starlette.requests import HTTPConnection
from starlette.responses import Response

from auth.authenticator import Authenticator
from auth.limits import Requests
from auth.viewer import NOBODY, Viewer
from models.errors import Forbidden, Unauthenticated

_REQUEST_ID: Final = re.compile(r"[A-Za-z0-9._:-]{1,128}\Z", re.ASCII)


def request_id(headers: Headers) -> str:
    """Take the caller's request id when it is one, else make one."""
    given = headers.get("x-request-id", "")
    return given if _REQUEST_ID.match(given) else uuid.uuid4().hex


@dataclass(frozen=True, slots=True)
class Shown:
    """The credentials that a request carries."""

    authorization: str | None
    cookie: str | None

    @property
    def by_cookie(self) -> bool:
        """Whether it is a cookie that counts, which a browser adds of its own accord."""
        return self.authorization is None and self.cookie is not None


class Door:
    """Lets requests in: looks at where they come from and asks who sends them."""

    def __init__(self, authenticator: Authenticator, requests: Requests, *, origins: Collection[str]) -> None:
        """`origins`: those beside our own whose pages may use the service."""
        self._authenticator = authenticator
        self._requests = requests
        self._origins = frozenset(origins)

    def permits(self, headers: Headers) -> bool:
        """Whether a page of this origin may use our cookie. Programs send no Origin; `null` is nobody's."""
        origin = headers.get("origin")
        if origin is None:
            return True
        origin = origin.lower()
        if origin in self._origins:
            return True
        try:
            # Behind a proxy that ends TLS our own scheme is not known for sure; the host is.
            host = urlsplit(origin).netloc
        except ValueError:
            return False
        return bool(host) and host == headers.get("host", "").lower()

    async def admit(self, connection: HTTPConnection) -> Viewer:
        """Say who sends a request, and count it.

        Raises `Unauthenticated`, `Forbidden` for a cookie from a foreign page, and `RateLimited`.
        """
        shown = credentials(connection)
        if shown.by_cookie and not self.permits(connection.headers):
            raise Forbidden("Requests with our cookie come from our own pages, or from ALLOWED_ORIGINS.")
        try:
            viewer = await self.recognise(shown)
        except Unauthenticated:
            await self.count(NOBODY, connection)
            raise
        await self.count(viewer, connection)
        return viewer

    async def count(self, viewer: Viewer, connection: HTTPConnection) -> None:
        """Count a request, or an operation of a WebSocket. Raises `RateLimited`."""
        await self._requests.take(viewer, address=address(connection))

    async def recognise(self, shown: Shown) -> Viewer:
        """Say who shows these credentials. Raises `Unauthenticated`."""
        return await self._authenticator.authenticate(shown.authorization, shown.cookie)


def credentials(connection: HTTPConnection, payload: Mapping[str, object] | None = None) -> Shown:
    """Collect the credentials of a request; those in a WebSocket's `connection_init` go before its handshake's."""
    for name, value in (payload or {}).items():
        if name.lower() == "authorization" and isinstance(value, str) and value:
            return Shown(value, None)
    return Shown(
        connection.headers.get("authorization") or None,
        connection.cookies.get(_cookie_name(connection)) or None,
    )


def address(connection: HTTPConnection) -> str:
    """Say where a request comes from: behind TRUSTED_PROXIES, from whom they had it."""
    return connection.client.host if connection.client else ""


def set_cookie(response: Response, connection: HTTPConnection, token: str, *, expires_at: datetime) -> None:
    """Have the browser keep an access token."""
    response.set_cookie(
        _cookie_name(connection),
        token,
        expires=expires_at,
        path="/",
        secure=_is_secure(connection),
        httponly=True,
        samesite="lax",
    )


def forget_cookie(response: Response, connection: HTTPConnection) -> None:
    """Have the browser drop its access token."""
    response.delete_cookie(
        _cookie_name(connection), path="/", secure=_is_secure(connection), httponly=True, samesite="lax"
    )


def _cookie_name(connection: HTTPConnection) -> str:
    # The prefix has browsers refuse a cookie that another host of the domain planted; it needs https.
    return "__Host-agenthub" if _is_secure(connection) else "agenthub"


def _is_secure(connection: HTTPConnection) -> bool:
    return connection.scope["scheme"] in {"https", "wss"}
