"""Builds the services, starts and stops them in order, and routes requests to them."""

import gc
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, closing, nullcontext
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Final

from beanie import Document
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.middleware.cors import CORSMiddleware
from starlette.routing import BaseRoute, Route, WebSocketRoute

import resolvers
from auth.authenticator import Authenticator
from auth.limits import Requests
from auth.minting import Minting
from auth.passwords import Passwords
from auth.registration import Registration
from auth.signin import SignIn
from auth.tokens import TokenMaker
from graph import schema
from graph.context import Services
from graph.schema import Schema
from models.agents import Agent
from models.alerts import rules
from models.alerts.raised import Alert, AlertState
from models.alerts.rules import AlertRule
from models.alerts.signing import Signing
from models.budgets.changing import Budgets
from models.budgets.defaults import BudgetDefault
from models.budgets.kept import Budget, Reservation
from models.keys import ApiKey
from models.organism.applying import Organism
from models.organism.file import OrganismFile
from models.prices import entries
from models.prices.entries import Price
from models.prices.keeping import Prices
from models.ratings import Rating
from models.runs.figures import RunFigures, RunHour
from models.runs.happenings import Happenings
from models.runs.recording import Recording
from models.runs.reports import AgentRun
from models.runs.retention import RemovedRuns, RunHorizon
from models.runs.versions import AgentVersion
from models.sessions import Session
from models.store import database, migrations, sequences
from models.store.buckets import Bucket
from models.store.commits import Commits
from models.store.database import Database
from models.store.idempotency import KeptAnswer
from models.store.live import Live
from models.store.migrations import Migration
from models.store.orphans import OpenTransaction
from models.store.outbox import OutboxItem
from models.store.turns import Turn
from models.threads import budgeted
from models.threads.activity import AgentActivity
from models.threads.conversations import Thread
from models.threads.events import ControlEvent
from models.threads.inboxes import Inboxes
from models.threads.messages import Message
from models.threads.messaging import Messaging
from models.usage import reported
from models.usage.counting import Counting
from models.usage.days import UsageHours, UsageMonth
from models.usage.events import UsageEvent
from models.usage.resets import Resetting, UsageReset
from models.usage.seen import Seen
from models.usage.snapshots import Snapshots, UsageSnapshot
from models.users import User
from server import background, export, health, logs, metrics, playground, signals
from server.connections import Connections
from server.credentials import Door
from server.http import GraphQLOverHTTP
from server.mongod import Mongod
from server.operations import Operations
from server.settings import Settings, load
from server.sse import EventStreams
from server.tracing import Tracing
from server.trusted import TrustedDocuments
from server.websocket import WebSockets

DOCUMENTS: Final[Sequence[type[Document]]] = (
    User,
    Session,
    ApiKey,
    Agent,
    Rating,
    Price,
    AlertRule,
    Alert,
    AlertState,
    UsageEvent,
    UsageMonth,
    UsageHours,
    UsageSnapshot,
    UsageReset,
    Seen,
    AgentVersion,
    AgentRun,
    Budget,
    BudgetDefault,
    Reservation,
    RunFigures,
    RunHour,
    RemovedRuns,
    RunHorizon,
    Thread,
    Message,
    AgentActivity,
    ControlEvent,
    Organism,
    OutboxItem,
    Bucket,
    KeptAnswer,
    Migration,
    Turn,
    OpenTransaction,
    sequences.Sequence,
)

_PLAYGROUND: Final = Path(__file__).parent.parent / "playground" / "dist"


@dataclass(frozen=True, slots=True)
class Accounts:
    """What it takes to make accounts and keys, from the command line too."""

    database: Database
    passwords: Passwords
    registration: Registration
    minting: Minting


@dataclass(frozen=True, slots=True)
class Running:
    """What a process is made of while it runs."""

    database: Database
    services: Services
    authenticator: Authenticator
    schema: Schema


@asynccontextmanager
async def opened(settings: Settings) -> AsyncIterator[Database]:
    """Open the database: the one that MONGODB_URI names, else the embedded one, started here or joined."""
    async with AsyncExitStack() as stack:
        if settings.mongodb_uri:
            uri = settings.mongodb_uri.get_secret_value()
        else:
            uri = (await stack.enter_async_context(Mongod(settings.data_dir))).uri
        yield await stack.enter_async_context(database.connect(uri, settings.mongodb_dbname, DOCUMENTS))


@asynccontextmanager
async def accounts(settings: Settings) -> AsyncIterator[Accounts]:
    """Open the database and start what makes accounts and keys; needs no SECRET_KEY."""
    async with opened(settings) as store, Passwords(settings.password_cost) as passwords:
        registration = Registration(passwords, is_open=settings.registration_open)
        yield Accounts(store, passwords, registration, Minting())


async def keep_default_rule(settings: Settings) -> None:
    """Have the alert rule that the settings describe."""
    await rules.keep_default(
        threshold=settings.token_usage_threshold,
        cooldown_hours=settings.notification_cooldown_hours,
        now=datetime.now(UTC),
    )


def thread_budgets(*, told: Callable[[], None] = lambda: None) -> Budgets:
    """Give what changes budgets, and has threads hear of it; `told` is called when they have."""
    return Budgets(tell=budgeted.crossed, reopen=budgeted.reopened, told=told)


@asynccontextmanager
async def running(settings: Settings) -> AsyncIterator[Running]:
    """Start every service, and stop them in the opposite order: what was taken in is stored before the store goes."""
    built = schema.build(resolvers.ROOTS, introspection=settings.introspection, limits=settings.limits)
    tokens = TokenMaker(
        settings.signing_key(),
        older=settings.older_keys,
        algorithm=settings.algorithm,
        life=timedelta(minutes=settings.access_token_expire_minutes),
    )
    async with accounts(settings) as made:
        await migrations.once("pencil agents", reported.tag_pencils, now=datetime.now(UTC))
        await keep_default_rule(settings)
        await entries.keep_list(now=datetime.now(UTC))
        prices = Prices(made.database)
        async with (
            Live(made.database, [Alert, ControlEvent]) as live,
            prices.held,
            Commits(UsageEvent) as commits,
            Messaging(settings.terms, stored=live.look) as messaging,
            Inboxes(live, messaging) as inboxes,
            Happenings() as happenings,
        ):
            budgets = thread_budgets(told=live.look)
            services = Services(
                commits=commits,
                counting=Counting(settings.zone, price=prices.price, budgets=budgets, raised=live.look),
                snapshots=Snapshots(settings.zone, raised=live.look),
                prices=prices,
                budgets=budgets,
                default_thread_tokens=settings.default_thread_tokens,
                resetting=Resetting(),
                recording=Recording(settings.zone),
                happenings=happenings,
                live=live,
                messaging=messaging,
                inboxes=inboxes,
                signin=SignIn(made.passwords, tokens),
                registration=made.registration,
                minting=made.minting,
                signing=Signing(settings.signing_key(), older=settings.older_keys),
                organism=OrganismFile(settings.organism_file, applied=live.look),
                configuration=settings.shown(),
                stop=partial(signals.stop_soon, settings.workers),
                zone=settings.zone,
            )
            yield Running(made.database, services, Authenticator(tokens), built)


def create(settings: Settings | None = None) -> Starlette:
    """Make the application; uvicorn's workers call it without arguments and find their settings in the environment."""
    settings = settings or load()
    logs.configure(settings.log_level)

    @asynccontextmanager
    async def lifespan(application: Starlette) -> AsyncIterator[None]:
        async with (
            running(settings) as parts,
            background.working(settings, parts.services) if settings.background_work else nullcontext(),
            Connections(parts.authenticator) as connections,
        ):
            streams = EventStreams(connections)
            tracing = Tracing(settings.otel_exporter_otlp_endpoint)
            application.router.routes.extend(_routes(settings, parts, streams, tracing=tracing))
            _spare_what_stays()
            with (
                signals.told_of_the_end(streams.stopping),
                signals.reloading(parts.services.organism),
                closing(tracing),
            ):
                yield

    return Starlette(lifespan=lifespan, middleware=_middleware(settings))


def _spare_what_stays() -> None:
    """Have the collector of cycles leave out what lives as long as the process: the schema and the code.

    It looked through all of it again and again (measured: a third of the CPU of a nested list). What a request makes is
    part of no circle: there is little to collect, and what several large answers hold at once is not worth a look.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(50_000, 10, 10)


def _routes(settings: Settings, parts: Running, streams: EventStreams, *, tracing: Tracing) -> Iterator[BaseRoute]:
    trusted = TrustedDocuments.load(settings.trusted_documents, mode=settings.trusted_documents_mode)
    runner = Operations(
        parts.schema, parts.services, trusted=trusted, tracing=tracing, forget=parts.authenticator.forget
    )
    requests = Requests(
        per_minute=settings.requests_per_minute, per_minute_of_nobody=settings.requests_per_minute_signed_out
    )
    door = Door(parts.authenticator, requests, origins=settings.allowed_origins)
    page = partial(playground.page, _PLAYGROUND) if settings.playground else None
    # Route and WebSocketRoute on one path: a Mount would answer POST with a redirect.
    yield Route(
        "/graphql",
        GraphQLOverHTTP(runner, door, streams=streams, max_body_bytes=settings.max_body_bytes, playground=page),
    )
    yield WebSocketRoute("/graphql", WebSockets(runner, door, streams.connections, stopping=streams.stopping).serve)
    yield from export.routes(door)
    yield from health.routes(parts.database, parts.services.live, streams.stopping)
    if settings.metrics:
        yield from metrics.routes(settings.metrics_token)
    if settings.playground:
        yield from playground.routes(_PLAYGROUND)


def _middleware(settings: Settings) -> Sequence[Middleware]:
    if not settings.allowed_origins:
        return []
    return [
        Middleware(
            CORSMiddleware,
            allow_origins=settings.allowed_origins,
            allow_methods=["GET", "POST"],
            allow_headers=["Authorization", "Content-Type", "X-Request-Id", "GraphQL-Cost", "Idempotency-Key"],
            expose_headers=["X-Request-Id", "Retry-After", "Idempotent-Replayed"],
            allow_credentials=True,
        )
    ]
