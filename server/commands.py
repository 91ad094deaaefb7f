"""The command line: serve, create-admin, create-key, rebuild, schema."""

import asyncio
import os
import signal
import socket
import sys
from collections.abc import Coroutine
from contextlib import AsyncExitStack
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Annotated, Any, Final, NoReturn, TypeVar

import structlog
import typer
import uvicorn
import uvloop
from rich.console import Console
from rich.panel import Panel
from uvicorn.supervisors import Multiprocess

import resolvers
from graph import schema
from models.errors import AgentHubError, Refused
from server import application, demo, logs
from server.mongod import Mongod, MongodError
from server.settings import Settings, load

T = TypeVar("T")

# In-flight requests and the database have to end before a process manager loses its patience, mostly after 10 s.
_GRACE_S: Final = 6
_UNREAD_MS: Final = 30_000
_BACKLOG: Final = 2048

log = structlog.get_logger()
out = Console(highlight=False)

cli = typer.Typer(
    name="agenthub",
    help="The control plane for a company's AI agents, as one GraphQL service over MongoDB.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
)
rebuild_cli = typer.Typer(help="Compute stored figures again from what they were computed from.", no_args_is_help=True)
cli.add_typer(rebuild_cli, name="rebuild")

Uri = Annotated[str | None, typer.Option("--mongodb-uri", help="MongoDB replica set; embedded without it.")]
DataDir = Annotated[Path | None, typer.Option("--data-dir", help="Where the embedded database is kept.")]


def main() -> None:
    """Run the command line; what only a person can mend ends it with one line."""
    try:
        cli()
    except (AgentHubError, MongodError) as error:
        _fail(str(error))


def _fail(message: str) -> NoReturn:
    Console(stderr=True, highlight=False, soft_wrap=True).print(f"[bold red]agenthub:[/] {message}", markup=True)
    sys.exit(1)


@cli.callback(invoke_without_command=True)
def _version(
    *, version: Annotated[bool, typer.Option("--version", help="Say which version this is.", is_eager=True)] = False
) -> None:
    if version:
        out.print("agenthub")
        raise typer.Exit


@cli.command()
def serve(
    *,
    demo_mode: Annotated[bool, typer.Option("--demo", help="Demo accounts and data; never for production.")] = False,
    host: Annotated[str | None, typer.Option(help="Address to listen on.")] = None,
    port: Annotated[int | None, typer.Option(help="Port to listen on; 0 takes a free one.")] = None,
    workers: Annotated[int | None, typer.Option(help="Processes that serve.")] = None,
    mongodb_uri: Uri = None,
    data_dir: DataDir = None,
) -> None:
    """Serve GraphQL over HTTP and WebSocket until stopped."""
    settings = _settings(
        demo=demo_mode or None,
        host=host,
        port=port,
        workers=workers,
        mongodb_uri=mongodb_uri,
        data_dir=data_dir,
    )
    settings.signing_key()
    _run(_serve(settings))


@cli.command()
def create_admin(
    *,
    email: Annotated[str, typer.Option(prompt=True, envvar="ADMIN_EMAIL", help="E-mail to sign in with.")],
    name: Annotated[str, typer.Option(help="Name to show.")] = "Admin",
    password: Annotated[
        str,
        typer.Option(prompt=True, confirmation_prompt=True, hide_input=True, envvar="ADMIN_PASSWORD"),
    ],
    mongodb_uri: Uri = None,
    data_dir: DataDir = None,
) -> None:
    """Create an admin account."""
    settings = _settings(mongodb_uri=mongodb_uri, data_dir=data_dir)


def _settings(**given: object) -> Settings:
    """Read the settings, what was given on the command line before the environment.

    It is put into the environment, because that is where worker processes find it.
    """
    os.environ.update({name.upper(): str(value) for name, value in given.items() if value is not None})
    settings = load()
    logs.configure(settings.log_level)
    return settings


def _run(work: Coroutine[Any, Any, T]) -> T:
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(work)
