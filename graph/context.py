"""Context of one execution, and the services that live as long as the process."""

from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, ParamSpec, TypeAlias, TypeVar
from zoneinfo import ZoneInfo

import strawberry

from auth.minting import Minting
from auth.registration import Registration
from auth.signin import SignIn, Tokens
from auth.viewer import NOBODY, Viewer
from graph.loaders import BatchedRead, Loaders
from models.alerts.signing import Signing
from models.budgets.changing import Budgets
from models.organism.file import OrganismFile
from models.prices.keeping import Prices
from models.runs.happenings import Happenings
from models.runs.recording import Recording
from models.store.commits import Commits
from models.store.database import Row
from models.store.live import Live, Teller
from models.threads.inboxes import Inboxes
from models.threads.messaging import Messaging
from models.usage.counting import Counting
from models.usage.resets import Resetting
from models.usage.snapshots import Snapshots

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")
P = ParamSpec("P")


@dataclass(frozen=True, slots=True)
class Services:
    """What resolvers may call; built once, in `server/application.py`."""

    commits: Commits
    counting: Counting
    snapshots: Snapshots
    resetting: Resetting
    recording: Recording
    happenings: Happenings
    prices: Prices
    budgets: Budgets
    default_thread_tokens: int
    live: Live
    messaging: Messaging
    inboxes: Inboxes
    signin: SignIn
    registration: Registration
    minting: Minting
    signing: Signing
    organism: OrganismFile
    configuration: Sequence[Mapping[str, Any]]
    """The settings as operators may see them, each with the fields of `graph.organism.Setting`."""
    stop: Callable[[], int]
    """Has the whole server stop soon, and says how many processes that are."""
    zone: ZoneInfo


@dataclass(slots=True)
class Context:
    """One execution: who asks, when, and what it has read so far."""

    services: Services
    now: datetime
    request_id: str
    address: str
    viewer: Viewer = NOBODY
    loaders: Loaders = field(default_factory=Loaders)
    # Kept with the document that is run.
    kept: dict[Any, Any] = field(default_factory=dict)
    # What a sign-in or sign-out wants of the answer's cookies; the transport that has an answer to put them on sets
    # them. `False` forgets, a Tokens sets.
    cookies: Tokens | bool | None = None
    # Set by a transport that can tell the subscriber of an event at once: makes the teller of a way from row to object.
    telling: Callable[[Callable[[Row], Any]], Teller] | None = None

    def teller(self, of: Callable[[Row], Any]) -> Teller | None:
        """Make what tells the subscriber of a row, which `of` turns into what the subscription gives."""
        return self.telling(of) if self.telling else None

    async def load(self, read: BatchedRead[K, P, V], key: K, *args: P.args, **kwargs: P.kwargs) -> V:
        """Read one key in a batch with its neighbours; the read must know every key."""
        value = await self.loaders.load(read, key, *args, **kwargs)
        if value is None:
            raise LookupError(f"{read.__qualname__} left out {key!r}")
        return value

    async def find(self, read: BatchedRead[K, P, V], key: K | None, *args: P.args, **kwargs: P.kwargs) -> V | None:
        """Read one key in a batch with its neighbours; None where there is none."""
        return None if key is None else await self.loaders.load(read, key, *args, **kwargs)

    async def count(self, read: BatchedRead[K, P, int], key: K, *args: P.args, **kwargs: P.kwargs) -> int:
        """Count for one key in a batch with its neighbours; a key that is left out has none."""
        return await self.loaders.load(read, key, *args, **kwargs) or 0


Info: TypeAlias = strawberry.Info[Context, None]
