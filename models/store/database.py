"""MongoDB as the house knows it: connect, bind documents, run transactions. The only module that names the driver."""

import asyncio
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
from motor.motor_asyncio import (
    AsyncIOMotorClient,
    AsyncIOMotorClientSession,
    AsyncIOMotorCollection,
    AsyncIOMotorDatabase,
)
from pydantic import ConfigDict
from pymongo import ASCENDING, DESCENDING, IndexModel, InsertOne, ReadPreference, ReplaceOne, ReturnDocument, UpdateOne
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
    "Database",
    "DatabaseError",
    "DuplicateKeyError",
    "Handle",
    "IndexModel",
    "InsertOne",
    "Key",
    "ReplaceOne",
    "ReturnDocument",
    "Row",
    "Session",
    "Stored",
    "UpdateOne",
    "admin",
    "collection",
    "connect",
    "global_id",
    "is_duplicate",
    "is_passing",
    "snapshot",
    "transaction",
]

Row = Mapping[str, Any]
"""A stored document as the driver reads it: names as stored, times aware and in UTC."""

Key = ObjectId
STORED_ZONE = utc
"""The zone of the times that the driver reads: UTC."""
Session = AsyncIOMotorClientSession
Collection = AsyncIOMotorCollection[dict[str, Any]]
Handle = AsyncIOMotorDatabase[dict[str, Any]]
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
D = TypeVar("D", bound=Document)


def global_id(kind: str, key: Key | int | str) -> str:
    """Make the id by which clients know a stored document: the type's name and its key, in base64."""
    return b2a_base64(f"{kind}:{key}".encode(), newline=False).decode()


class Stored(Document):
    """The base of every document: its keys to others are MongoDB's own ids."""

    model_config = ConfigDict(arbitrary_types_allowed=True)


@dataclass(frozen=True, slots=True)
class Database:
    """An open connection with the documents bound to it."""

    client: AsyncIOMotorClient[dict[str, Any]]
    handle: AsyncIOMotorDatabase[dict[str, Any]]
    documents: Sequence[type[Document]] = field(default=())

    async def ping(self) -> None:
        """Ask the primary for a sign of life; raises `ServiceUnavailable` within a second or so when there is none."""
        try:
            await asyncio.wait_for(self.handle.command("ping"), timeout=1.0)
        except (PyMongoError, TimeoutError) as error:
            raise ServiceUnavailable from error

    async def create_indexes(self) -> None:
        """Create what is missing; an index that is already there costs nothing."""
        await init_beanie(self.handle, document_models=list(self.documents))

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
    client = _client(uri)
    try:
        await _inspect(client)
        handle = client.get_database(name, write_concern=_MAJORITY_WRITE)
        database = Database(client, handle, documents)
        await database.create_indexes()
        yield database
    finally:
        client.close()


@asynccontextmanager
async def reading(uri: str, *, default: str) -> AsyncIterator[Handle]:
    """Open the database of another system, of which nobody here writes anything; a standalone server will do.

    `default`: its name, when `uri` has none. Raises `Refused` for one that cannot be read.
    """
    client = _client(uri, setting="The address")
    try:
        handle = client.get_default_database(default)
        try:
            await handle.command("ping")
        except PyMongoError as error:
            raise Refused(f"The MongoDB at {_hosts(client)} cannot be read: {type(error).__name__}.") from None
        yield handle
    finally:
        client.close()


def _client(uri: str, *, setting: str = "MONGODB_URI") -> AsyncIOMotorClient[dict[str, Any]]:
    asked = {option.lower() for option in parse_qs(urlsplit(uri).query)}
    limits: dict[str, Any] = {option: value for option, value in _LIMITS.items() if option.lower() not in asked}
    try:
        return AsyncIOMotorClient(uri, tz_aware=True, appname="agenthub", w="majority", journal=True, **limits)
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
    client: AsyncIOMotorClient[dict[str, Any]] = AsyncIOMotorClient(
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
        client.close()


def collection(document: type[Document], *, majority: bool = False) -> Collection:
    """Give the raw collection of a document class; `majority` reads only what no failover can take back."""
    raw: Collection = document.get_motor_collection()
    return raw.with_options(read_concern=MAJORITY_READ) if majority else raw


async def transaction(
    document: type[Document],
    body: Callable[[Session], Awaitable[T]],
    *,
    deadline_s: float = _TRANSACTION_DEADLINE_S,
    retry_duplicates: bool = False,
) -> T:
    """Run `body` in one transaction on the database of `document`, again and again until it commits.

    The whole body runs again also after a commit of unknown outcome, so it must recognise its own work: by a unique
    key, or by a commit id. A duplicate key is raised, unless `retry_duplicates` says that `body` looks for what is
    stored already and will find it the next time. Raises `ServiceUnavailable` when the deadline passes.
    """
    client = document.get_motor_collection().database.client
    loop = asyncio.get_running_loop()
    deadline = loop.time() + deadline_s
    while True:
        try:
            async with asyncio.timeout_at(deadline), await client.start_session() as session:
                async with session.start_transaction(
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


@asynccontextmanager
async def snapshot(document: type[Document]) -> AsyncIterator[Session]:
    """Open a session whose reads all see one moment of the database; for reads that take long (up to five minutes)."""
    client = document.get_motor_collection().database.client
    async with await client.start_session(snapshot=True) as session:
        yield session


def is_passing(error: PyMongoError) -> bool:
    """Tell a fault that the same transaction may survive when run again from one that it will meet again."""
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
