"""MongoDB as the house knows it: connect, bind documents, run transactions. The only module that names the driver."""

import asyncio
import itertools
import random
from binascii import b2a_base64
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, TypeVar
from urllib.parse import parse_qs, urlsplit

from beanie import Document, init_beanie
from bson import ObjectId
from bson.tz_util import utc
from motor.motor_asyncio import AsyncIOMotorClient
from pydantic import ConfigDict
from pymongo import (
    ASCENDING,
    DESCENDING,
    AsyncMongoClient,
    IndexModel,
    InsertOne,
    ReadPreference,
    ReplaceOne,
    ReturnDocument,
    UpdateOne,
)
from pymongo.asynchronous import pool, topology
from pymongo.asynchronous.client_session import AsyncClientSession
from pymongo.asynchronous.collection import AsyncCollection
from pymongo.asynchronous.database import AsyncDatabase
from pymongo.errors import (
    AutoReconnect,
    BulkWriteError,
    ConfigurationError,
    ConnectionFailure,
    DuplicateKeyError,
    InvalidURI,
    OperationFailure,
    PyMongoError,
    ServerSelectionTimeoutError,
)
from pymongo.read_concern import ReadConcern
from pymongo.write_concern import WriteConcern

from models.errors import Refused, ServiceUnavailable

__all__ = [
    "ASCENDING",
    "DESCENDING",
    "MAJORITY_READ",
    "STORED_ZONE",
    "BulkWriteError",
    "Database",
    "DatabaseError",
    "DuplicateKeyError",
    "Handle",
    "IndexModel",
    "InsertOne",
    "Key",
    "Outdated",
    "ReplaceOne",
    "ReturnDocument",
    "Row",
    "Session",
    "Stored",
    "UpdateOne",
    "admin",
    "aggregate",
    "change_and_read",
    "collection",
    "connect",
    "global_id",
    "is_duplicate",
    "is_passing",
    "quick",
    "snapshot",
    "transaction",
]

Row = Mapping[str, Any]
"""A stored document as the driver reads it: names as stored, times aware and in UTC."""

Key = ObjectId
STORED_ZONE = utc
"""The zone of the times that the driver reads: UTC."""
Session = AsyncClientSession
Collection = AsyncCollection[dict[str, Any]]
Handle = AsyncDatabase[dict[str, Any]]
Client = AsyncMongoClient[dict[str, Any]]
DatabaseError = PyMongoError
MAJORITY_READ = ReadConcern("majority")

_MAJORITY_WRITE = WriteConcern(w="majority", j=True)

# A frozen primary keeps its sockets open: without a limit on each operation a caller waits half a minute. Measured
# with these values: 4.1 s of silence, 29 s with the driver's own.
_LIMITS: Mapping[str, int] = {
    "timeoutMS": 4000,
    "heartbeatFrequencyMS": 1000,
    "connectTimeoutMS": 2000,
    "serverSelectionTimeoutMS": 4000,
}
_TRANSACTION_DEADLINE_S = 10.0
_UNKNOWN_COMMIT = "UnknownTransactionCommitResult"
_TRANSIENT = "TransientTransactionError"
_WRITE_CONFLICT, _NO_SUCH_TRANSACTION, _INTERRUPTED, _MAX_TIME = 112, 251, 11601, 50

T = TypeVar("T")


async def _await_condition(condition: Any, timeout: float | None) -> bool:  # noqa: ANN401, ASYNC109  # as PyMongo's own
    """Wait for a condition as PyMongo does, in the task that asks.

    Python 3.11's `wait_for` waits in a task of its own. Cancelled while that one takes the condition's lock back, it
    leaves the lock held by nobody, for ever: no operation of the process came through any more after a database that
    was away for some seconds. Python 3.12 has no such task.
    """
    try:
        async with asyncio.timeout(timeout):
            return bool(await condition.wait())
    except TimeoutError:
        return False


for _module in (topology, pool):
    _module._async_cond_wait = _await_condition  # type: ignore[attr-defined]  # noqa: SLF001  # nothing public does it


def global_id(kind: str, key: Key | int | str) -> str:
    """Make the id by which clients know a stored document: the type's name and its key, in base64."""
    return b2a_base64(f"{kind}:{key}".encode(), newline=False).decode()


class Stored(Document):
    """The base of every document: its keys to others are MongoDB's own ids."""

    model_config = ConfigDict(arbitrary_types_allowed=True)


@dataclass(frozen=True, slots=True)
class Database:
    """An open connection with the documents bound to it."""

    client: Client
    handle: Handle
    documents: Sequence[type[Document]] = field(default=())

    async def ping(self) -> None:
        """Ask the primary for a sign of life; raises `ServiceUnavailable` within a second or so when there is none."""
        try:
            await asyncio.wait_for(self.handle.command("ping"), timeout=1.0)
        except (PyMongoError, TimeoutError) as error:
            raise ServiceUnavailable from error

    async def empty(self, *, keep: Sequence[str] = ()) -> None:
        """Delete every document and leave the indexes. For tests and for loading demo data afresh."""
        names = [name for name in await self.handle.list_collection_names() if name not in keep]
        await asyncio.gather(*(self.handle[name].delete_many({}) for name in names if not name.startswith("system.")))


@asynccontextmanager
async def connect(uri: str, name: str, documents: Sequence[type[Document]]) -> AsyncIterator[Database]:
    """Open a database and bind `documents` to it, indexes included.

    Raises `Refused` with one plain line for what only a person can mend: an unreachable host, a wrong password, a
    server that is no replica set, one older than 6.0.
    """
    await _bind(uri, name, documents)
    client: Client = _opened(AsyncMongoClient, uri)
    try:
        handle = client.get_database(name, write_concern=_MAJORITY_WRITE)
        for document in documents:
            settings: Any = document.get_settings()
            settings.motor_collection = handle[settings.name]
        yield Database(client, handle, documents)
    finally:
        await client.close()


async def _bind(uri: str, name: str, documents: Sequence[type[Document]]) -> None:
    """Look whether the database can be used, bind documents and create the indexes that are missing.

    Beanie does so by Motor, and is then handed collections of PyMongo's own asyncio client for all the rest: Motor
    sends each operation through a thread (measured, 8 readers of 50 rows: 0.88 ms of CPU each against 0.55).
    """
    motor = _opened(AsyncIOMotorClient, uri)
    try:
        await _inspect(motor)
        await init_beanie(motor.get_database(name), document_models=list(documents))
    finally:
        motor.close()


@asynccontextmanager
async def reading(uri: str, *, default: str) -> AsyncIterator[Handle]:
    """Open the database of another system, of which nobody here writes anything; a standalone server will do.

    `default`: its name, when `uri` has none. Raises `Refused` for one that cannot be read.
    """
    setting = "The address"
    motor = _opened(AsyncIOMotorClient, uri, setting=setting)
    try:
        await motor.get_default_database(default).command("ping")
    except PyMongoError as error:
        raise Refused(f"The MongoDB at {_hosts(motor)} cannot be read: {type(error).__name__}.") from None
    finally:
        motor.close()
    client: Client = _opened(AsyncMongoClient, uri, setting=setting)
    try:
        yield client.get_default_database(default)
    finally:
        await client.close()


def _opened(kind: Any, uri: str, *, setting: str = "MONGODB_URI") -> Any:  # noqa: ANN401  # clients of two drivers
    asked = {option.lower() for option in parse_qs(urlsplit(uri).query)}
    limits: dict[str, Any] = {option: value for option, value in _LIMITS.items() if option.lower() not in asked}
    try:
        return kind(uri, tz_aware=True, appname="agenthub", w="majority", journal=True, **limits)
    except (InvalidURI, ConfigurationError, ValueError) as error:
        raise Refused(f"{setting} cannot be read: {_without_secrets(error, uri)}") from None


async def _inspect(client: AsyncIOMotorClient[dict[str, Any]]) -> None:
    try:
        hello = await client.admin.command("hello")
        build = await client.admin.command("buildInfo")
    except ServerSelectionTimeoutError:
        raise Refused(
            f"No MongoDB answers at {_hosts(client)}. Check MONGODB_URI, or leave it out to use the embedded database."
        ) from None
    except OperationFailure as error:
        raise Refused(
            f"MongoDB at {_hosts(client)} refused the sign-in ({error.code}). Check user and password in MONGODB_URI."
        ) from None
    except PyMongoError as error:
        raise Refused(f"MongoDB at {_hosts(client)} cannot be used: {type(error).__name__}.") from None
    if "setName" not in hello and hello.get("msg") != "isdbgrid":
        raise Refused(
            f"MongoDB at {_hosts(client)} is a standalone server. Transactions and change streams need a replica set: "
            "start it with --replSet and run rs.initiate() once, or leave MONGODB_URI out."
        )
    version = tuple(build["versionArray"][:2])
    if version < (6, 0):
        raise Refused(f"MongoDB {build['version']} is too old; 6.0 or newer is needed.")


def _hosts(client: AsyncIOMotorClient[dict[str, Any]]) -> str:
    seeds = client.delegate._topology_settings.seeds  # noqa: SLF001  # the driver shows no public way to what was asked for
    return ", ".join(f"{host}:{port}" for host, port in sorted(seeds))


def _without_secrets(error: Exception, uri: str) -> str:
    password = urlsplit(uri).password if "://" in uri else None
    text = str(error)
    return text.replace(password, "***") if password else text


async def admin(uri: str, command: Mapping[str, object], *, timeout_ms: int = 2000) -> dict[str, Any]:
    """Run one admin command on the very server that `uri` names, over a connection of its own.

    Raises `ServiceUnavailable` when it cannot be reached, `DatabaseError` when it refuses the command.
    """
    client: Client = AsyncMongoClient(
        uri,
        directConnection=True,
        serverSelectionTimeoutMS=timeout_ms,
        connectTimeoutMS=timeout_ms,
        socketTimeoutMS=timeout_ms,
        read_preference=ReadPreference.PRIMARY_PREFERRED,
    )
    try:
        return dict(await client.admin.command(dict(command)))
    except ConnectionFailure as error:
        raise ServiceUnavailable from error
    finally:
        await client.close()


def collection(document: type[Document], *, majority: bool = False) -> Collection:
    """Give the raw collection of a document class; `majority` reads only what no failover can take back."""
    raw: Any = document.get_motor_collection()  # `_bind` has set it to what Beanie's types do not know
    found: Collection = raw.with_options(read_concern=MAJORITY_READ) if majority else raw
    return found


def quick(document: type[Document]) -> Collection:
    """Give the raw collection of a document class for what may be lost: writes wait for no journal and no majority."""
    return collection(document).with_options(write_concern=WriteConcern(w=1, j=False))


async def change_and_read(
    source: Collection,
    where: Mapping[str, Any],
    change: Mapping[str, Any] | Sequence[Mapping[str, Any]],
    *,
    upsert: bool = False,
    projection: Mapping[str, Any] | None = None,
    session: Session | None = None,
) -> dict[str, Any]:
    """Change one document that is known to be there, or is made by `upsert`, and give it as it stands then."""
    row = await source.find_one_and_update(
        where, change, upsert=upsert, projection=projection, return_document=ReturnDocument.AFTER, session=session
    )
    if row is None:
        raise LookupError(f"{source.name} has no such document")
    return row


async def aggregate(
    document: type[Document], pipeline: Sequence[Mapping[str, Any]], *, session: Session | None = None
) -> list[dict[str, Any]]:
    """Run a pipeline over the collection of a document class."""
    cursor = await collection(document).aggregate(pipeline, session=session)
    return await cursor.to_list(None)


async def transaction(
    document: type[Document],
    body: Callable[[Session], Awaitable[T]],
    *,
    deadline_s: float = _TRANSACTION_DEADLINE_S,
    retry_duplicates: bool = False,
    before: Callable[[int], Awaitable[None]] | None = None,
) -> T:
    """Run `body` in one transaction on the database of `document`, again and again until it commits.

    The whole body runs again also after a commit of unknown outcome, so it must recognise its own work: by a unique
    key, or by a commit id. A duplicate key is raised, unless `retry_duplicates` says that `body` looks for what is
    stored already and will find it the next time. `before` is awaited outside before each try, with the number of those
    that failed. Raises `ServiceUnavailable` when the deadline passes.
    """
    client = collection(document).database.client
    loop = asyncio.get_running_loop()
    deadline = loop.time() + deadline_s
    for failed in itertools.count():
        try:
            if before:
                async with asyncio.timeout_at(deadline):
                    await before(failed)
            async with asyncio.timeout_at(deadline), client.start_session() as session:
                async with await session.start_transaction(
                    read_concern=ReadConcern("snapshot"), write_concern=_MAJORITY_WRITE, max_commit_time_ms=5000
                ):
                    return await body(session)
        except TimeoutError as error:
            raise ServiceUnavailable from error
        except PyMongoError as error:
            if not (is_passing(error) or (retry_duplicates and is_duplicate(error))):
                raise
            # Short, on purpose: with longer pauses one of two processes on the same agents starves (measured: p99
            # 772 ms against 434 ms).
            await asyncio.sleep(random.uniform(0, 0.005))  # noqa: S311  # spreads retries, guards nothing
            if loop.time() >= deadline:
                raise ServiceUnavailable from error
    raise AssertionError  # it is counted without end


@asynccontextmanager
async def snapshot(document: type[Document]) -> AsyncIterator[Session]:
    """Open a session whose reads all see one moment of the database; for reads that take long (up to five minutes)."""
    client = collection(document).database.client
    async with client.start_session(snapshot=True) as session:
        yield session


class Outdated(PyMongoError):
    """Raised by the body of a transaction: what was read before it is not so any more; have it run again."""


def is_passing(error: PyMongoError) -> bool:
    """Tell a fault that the same transaction may survive when run again from one that it will meet again."""
    if isinstance(error, Outdated):
        return True
    if error.has_error_label(_TRANSIENT) or error.has_error_label(_UNKNOWN_COMMIT):
        return True
    if isinstance(error, ConnectionFailure | AutoReconnect) or error.timeout:
        return True
    if isinstance(error, BulkWriteError):
        return any(item.get("code") == _WRITE_CONFLICT for item in error.details.get("writeErrors", ()))
    return isinstance(error, OperationFailure) and error.code in {
        _WRITE_CONFLICT,
        _NO_SUCH_TRANSACTION,
        _INTERRUPTED,
        _MAX_TIME,
    }


def is_duplicate(error: PyMongoError) -> bool:
    """Whether a unique index refused the write, single or in bulk."""
    if isinstance(error, BulkWriteError):
        return any(item.get("code") == _DUPLICATE for item in error.details.get("writeErrors", ()))
    return isinstance(error, DuplicateKeyError)


_DUPLICATE = 11000
