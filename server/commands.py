"""The command line: serve, worker, create-admin, create-key, rebuild, import-agenthub, schema."""

import sys
import tomllib
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Annotated, Final, TypeVar

import structlog
import typer
from rich.panel import Panel
from rich.progress import Progress
from rich.table import Table

import resolvers
from graph import schema
from models import users
from models.errors import AgentHubError, BadInput, NotFound, Refused
from models.keys import ApiKeyScope
from models.moving.move import Move, Moved
from models.organism.file import OrganismFile
from models.store import database
from models.users import Role
from server import application, background, demo, serving
from server.application import Running
from server.mongod import MongodError
from server.rebuilding import rebuilding
from server.settings import Settings
from server.terminal import DataDir, Uri, out, run, settings_of
from server.trusted import TrustedDocuments

T = TypeVar("T")

_PROJECT: Final = Path(__file__).parent.parent / "pyproject.toml"

log = structlog.get_logger()
cli = typer.Typer(
    name="agenthub",
    help="The control plane for a company's AI agents, as one GraphQL service over MongoDB.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
)
cli.add_typer(rebuilding, name="rebuild")


def main() -> None:
    """Run the command line; what only a person can mend ends it with one line."""
    try:
        cli(prog_name="agenthub")
    except (AgentHubError, MongodError) as error:
        print(f"agenthub: {error}", file=sys.stderr)  # noqa: T201  # rich would read brackets in it as markup
        sys.exit(1)


@cli.callback(invoke_without_command=True)
def _options(*, version: Annotated[bool, typer.Option("--version", help="Say which version this is.")] = False) -> None:
    if version:
        out.print(tomllib.loads(_PROJECT.read_text())["project"]["version"])
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
    settings = settings_of(
        demo=demo_mode or None,
        host=host,
        port=port,
        workers=workers,
        mongodb_uri=mongodb_uri,
        data_dir=data_dir,
    )
    # Looked at here too, so that what is wrong is refused before anything is started.
    settings.signing_key()
    TrustedDocuments.load(settings.trusted_documents, mode=settings.trusted_documents_mode)
    _check_organism(settings)
    if bool(settings.admin_email) != bool(settings.admin_password):
        raise Refused("ADMIN_EMAIL and ADMIN_PASSWORD are set together or not at all.")

    async def prepare(parts: Running) -> None:
        await _first_admin(settings, parts)
        if settings.demo:
            with _bar("Loading demo data") as progress:
                await demo.load(parts.services, progress=progress)
        if parts.services.organism.path is not None:
            await parts.services.organism.apply(now=datetime.now(UTC))

    run(serving.serve(settings, prepare=prepare, announce=lambda url: _announce(settings, url)))


@cli.command()
def worker(*, mongodb_uri: Uri = None, data_dir: DataDir = None) -> None:
    """Send e-mails and webhooks and remove old runs until stopped, beside servers with BACKGROUND_WORK=false."""
    settings = settings_of(mongodb_uri=mongodb_uri, data_dir=data_dir)

    async def work() -> None:
        async with application.running(settings) as parts:
            await background.work(settings, parts.services)

    run(work())


@cli.command()
def create_admin(
    *,
    email: Annotated[str, typer.Option(prompt=True, help="E-mail to sign in with.")],
    password: Annotated[
        str,
        typer.Option(
            prompt=True, confirmation_prompt=True, hide_input=True, envvar="ADMIN_PASSWORD", help="Asked for if absent."
        ),
    ],
    name: Annotated[str, typer.Option(help="Name to show.")] = "Admin",
    mongodb_uri: Uri = None,
    data_dir: DataDir = None,
) -> None:
    """Create an account with the role ADMIN."""
    settings = settings_of(mongodb_uri=mongodb_uri, data_dir=data_dir)

    async def create() -> None:
        async with application.accounts(settings) as made:
            row = await made.registration.create(
                email=email, name=name, password=password, role=Role.ADMIN, now=datetime.now(UTC)
            )
        out.print(f"{row['email']} is an admin now.", markup=False)

    run(create())


@cli.command()
def create_key(
    *,
    owner: Annotated[str, typer.Option(help="E-mail of the account that it belongs to.")],
    name: Annotated[str, typer.Option(help="What it is for.")],
    scope: Annotated[list[ApiKeyScope], typer.Option(help="What it may do; give it several times for several.")],
    days: Annotated[int | None, typer.Option(min=1, max=3650, help="Days until it expires; never without.")] = None,
    mongodb_uri: Uri = None,
    data_dir: DataDir = None,
) -> None:
    """Create an API key and print its secret, which is kept nowhere."""
    settings = settings_of(mongodb_uri=mongodb_uri, data_dir=data_dir)

    async def create() -> None:
        now = datetime.now(UTC)
        expires_at = now + timedelta(days=days) if days else None
        async with application.accounts(settings) as made:
            person = await users.with_password(email=owner)
            if person is None:
                raise NotFound(f"There is no account {owner}.")
            given = {"name": name, "scopes": scope, "expires_at": expires_at}
            _, secret = await made.minting.mint_for(
                person["_id"], given, is_admin=person["role"] == Role.ADMIN, now=now
            )
        sys.stdout.write(f"{secret}\n")

    run(create())


@cli.command()
def import_agenthub(
    *,
    source: Annotated[
        str,
        typer.Option(
            "--from", envvar="IMPORT_FROM", help="The old registry's database, like mongodb://host/agenthub_db."
        ),
    ],
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what would be moved.")] = False,
    mongodb_uri: Uri = None,
    data_dir: DataDir = None,
) -> None:
    """Move in from the registry that AgentHub replaces: people, agents, usage, notifications and ratings.

    The source is only read. Run it again as often as you like: what is here stays, and nothing counts twice.
    """
    settings = settings_of(mongodb_uri=mongodb_uri, data_dir=data_dir)

    async def move() -> Mapping[str, Moved]:
        async with application.opened(settings), database.reading(source, default="agenthub_db") as old:
            await application.keep_default_rule(settings)
            with _bar("Moving") as progress:
                return await Move(old, zone=settings.zone, dry=dry_run, progress=progress).run()

    moved = run(move())
    table = Table("collection", "read", "would be taken" if dry_run else "taken", "here already", "not taken")
    for name, each in moved.items():
        table.add_row(name, *(f"{value:,}" for value in (each.read, each.taken, each.here, len(each.refused))))
    for name, each in moved.items():
        for line in each.refused:
            out.print(f"{name} {line}", markup=False)
    out.print(table)


@cli.command("schema")
def print_schema() -> None:
    """Print the schema, as `schema.graphql` keeps it."""
    built = schema.build(resolvers.ROOTS)
    sys.stdout.write(f"{built.as_str()}\n")


@contextmanager
def _bar(title: str) -> Iterator[Callable[[str, float], None]]:
    """Show how far long work has come: what it is at, and how much of it is done, from 0 to 1."""
    with Progress(console=out, transient=True) as bar:
        task = bar.add_task(title, total=1.0)
        yield lambda what, done: bar.update(task, description=f"{title}: {what}", completed=done)


def _check_organism(settings: Settings) -> None:
    if settings.organism_file is None:
        return
    try:
        OrganismFile(settings.organism_file).read()
    except BadInput as error:
        faults = "\n".join(fault.message for fault in error.faults)
        raise Refused(f"ORGANISM_FILE {settings.organism_file} cannot be applied.\n{faults}") from None


async def _first_admin(settings: Settings, parts: Running) -> None:
    if not settings.admin_email or not settings.admin_password:
        return
    if await users.count(users.Filter(role=Role.ADMIN, active=True)):
        return
    _, is_new = await parts.services.registration.ensure(
        email=settings.admin_email,
        name="Admin",
        password=settings.admin_password.get_secret_value(),
        role=Role.ADMIN,
        now=datetime.now(UTC),
    )
    if not is_new:
        raise Refused(f"ADMIN_EMAIL: {settings.admin_email} has an account already, which is no admin.")


def _announce(settings: Settings, url: str) -> None:
    lines = [f"Endpoint    {url}/graphql  (HTTP and WebSocket)"]
    if settings.playground:
        lines.append(f"Playground  {url}/graphql  in a browser")
    if settings.demo:
        lines += ["Sign in as  admin@agenthub.com / admin123", "            test@example.com / testpass123"]
    if settings.mongodb_uri is None:
        lines.append(f"Database    embedded, in {settings.data_dir}")
    lines.append("Stop        Ctrl-C")
    if out.is_terminal:
        out.print(Panel("\n".join(lines), title="AgentHub", title_align="left", expand=False))
    log.info("serving", url=url, workers=settings.workers, demo=settings.demo)
