"""Binds the port, holds the embedded database while workers come and go, and runs uvicorn until told to stop."""

import asyncio
import os
import resource
import signal
import socket
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from tempfile import TemporaryDirectory
from typing import Final

import uvicorn
from uvicorn.config import STARTUP_FAILURE
from uvicorn.supervisors import Multiprocess

from models.errors import Refused
from server import application, metrics
from server.application import Running
from server.mongod import Mongod
from server.protocol import Protocol, SocketProtocol
from server.settings import Settings, load

# In-flight requests and the database must end before a process manager loses its patience, most often after 10 s.
_GRACE_S: Final = 6
# A reader that takes nothing for this long, or a peer that vanished, is let go by the kernel, whatever waits for it.
_UNREAD_MS: Final = 30_000
_BACKLOG: Final = 2048


def _allow_sockets() -> None:
    """Have as many descriptors as the system grants: 1,024, a usual default, are few sockets."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


async def serve(
    settings: Settings, *, prepare: Callable[[Running], Awaitable[None]], announce: Callable[[str], None]
) -> None:
    """Serve until SIGINT or SIGTERM.

    `prepare` may use the services before the first request; `announce` is told the URL once they are known to work.
    Raises `Refused` and `MongodError` for what only a person can mend.
    """
    _allow_sockets()
    listener = _listen(settings.host, settings.port)
    config = uvicorn.Config(
        "server.application:create",
        factory=True,
        workers=settings.workers,
        http=Protocol,
        ws=SocketProtocol,
        ws_max_size=settings.max_body_bytes,
        # 27 kB a socket; 64 to 129 with it.
        ws_per_message_deflate=False,
        lifespan="on",
        proxy_headers=bool(settings.trusted_proxies),
        forwarded_allow_ips=list(settings.trusted_proxies),
        log_config=None,
        access_log=False,
        server_header=False,
        # Longer than the proxies before it keep theirs (60 s): none sends a request down a connection that is closing.
        timeout_keep_alive=75,
        timeout_graceful_shutdown=_GRACE_S,
    )
    async with AsyncExitStack() as stack:
        stack.callback(listener.close)
        if settings.mongodb_uri is None:
            await stack.enter_async_context(Mongod(settings.data_dir))
        async with application.running(settings) as parts:
            await prepare(parts)
        if settings.metrics and settings.workers > 1:
            os.environ[metrics.SHARED] = stack.enter_context(TemporaryDirectory(prefix="agenthub-metrics-"))
        announce(_url(listener))
        # uvicorn raises the signals that stopped it once more when it has ended; the database is still to be stopped.
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, lambda *_: None)
        if settings.workers == 1:
            await uvicorn.Server(config).serve([listener])
        else:
            parent = _Workers(config, [listener])
            await asyncio.to_thread(parent.run)
            if any(process.exitcode == STARTUP_FAILURE for process in parent.processes):
                raise Refused("A worker could not start, so all have stopped. The log says why.")


class _Workers(Multiprocess):
    """Workers under one parent."""

    def handle_hup(self) -> None:
        """Have a worker apply the organism's file, where there is one; uvicorn would replace them all.

        Once is enough: what is applied is stored. One that is still starting would die of the signal.
        """
        if not load().organism_file:
            super().handle_hup()
        elif ready := next((each.pid for each in self.processes if each.is_ready() and each.pid), None):
            os.kill(ready, signal.SIGHUP)
        else:
            self.signal_queue.append(signal.SIGHUP)


def _listen(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        listener = socket.create_server((host, port), family=family, backlog=_BACKLOG)
    except (OSError, UnicodeError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise Refused(f"HOST and PORT: {host}:{port} cannot be listened on ({reason}). Choose another port.") from None
    listener.set_inheritable(True)
    if hasattr(socket, "TCP_USER_TIMEOUT"):
        listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, _UNREAD_MS)
    return listener


def _url(listener: socket.socket) -> str:
    host, port = listener.getsockname()[:2]
    return f"http://[{host}]:{port}" if listener.family is socket.AF_INET6 else f"http://{host}:{port}"
