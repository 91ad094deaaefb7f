"""Tries and rates, shared by all processes: how often somebody may guess."""

import hashlib
import math
from collections import OrderedDict
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta
from ipaddress import ip_address, ip_network
from typing import Final

from auth.viewer import Viewer
from models import sessions, users
from models.errors import RateLimited
from models.store import buckets
from models.store.buckets import Rate
from models.store.database import DatabaseError, Key

# An account can be guessed at some 3,000 times a day, from however many addresses.
PER_ACCOUNT: Final = Rate(burst=10, every=timedelta(seconds=30))
PER_ADDRESS: Final = Rate(burst=30, every=timedelta(seconds=30))
# Less than an account has: one address alone cannot use up its tries for all others.
PER_ACCOUNT_AND_ADDRESS: Final = Rate(burst=8, every=timedelta(minutes=1))
REGISTRATIONS: Final = Rate(burst=100, every=timedelta(seconds=20))
_AT_ONCE: Final = 50
_CALLERS: Final = 10_000


@asynccontextmanager
async def guess(*, email: str, user: Key | None, address: str) -> AsyncIterator[None]:
    """Hold a place while a password is checked; one that is right gives the place back, a wrong one raises.

    The place is taken first, so that many guesses at once are no more than many one after another. Unknown accounts
    are counted like known ones. Nobody is locked out: from an address at which somebody has signed in within the last
    30 days they have tries of their own, whoever guesses from elsewhere, and elsewhere they wait half a minute once
    the guessing has stopped. Raises `RateLimited`.
    """
    near = network(address)
    account = hashlib.sha256(users.as_stored(email).encode("utf-8", "surrogatepass")).hexdigest()
    # The address first: one that has none left takes nothing from the account.
    places = [
        (f"login from:{near}", PER_ADDRESS),
        (f"login:{account} from:{near} at first", PER_ACCOUNT_AND_ADDRESS),
        (f"login:{account}", PER_ACCOUNT),
    ]
    if await sessions.began_at(user or Key(), near):
        places = [(f"login:{account} from:{near}", PER_ACCOUNT)]
    for key, rate in places:
        await _take(key, rate, "Too many tries to sign in.")
    yield
    for key, rate in places:
        await buckets.give_back(key, rate)


async def register(*, address: str) -> None:
    """Count an account that somebody makes for themselves. Raises `RateLimited`."""
    await _take(f"register from:{network(address)}", REGISTRATIONS, "Too many new accounts from your address.")


def network(address: str) -> str:
    """Give the part of an address that one caller holds: of IPv6 a whole /64."""
    try:
        found = ip_address(address)
    except ValueError:
        return address
    # Some proxies write every address of IPv4 as one of IPv6.
    found = getattr(found, "ipv4_mapped", None) or found
    return str(found) if found.version == 4 else str(ip_network(f"{found}/64", strict=False))  # noqa: PLR2004


class Requests:
    """Counts requests per person, API key and, of nobody, address; all processes together let through so many a minute.

    A process takes several at once from the shared bucket and hands them out by itself: a request in fifty asks the
    database.
    """

    def __init__(self, *, per_minute: int, per_minute_of_nobody: int) -> None:
        """0 lets everything through."""
        self._signed_in = _per_minute(per_minute)
        self._nobody = _per_minute(per_minute_of_nobody)
        self._left: OrderedDict[str, int] = OrderedDict()

    async def take(self, viewer: Viewer, *, address: str) -> None:
        """Count a request. Raises `RateLimited`."""
        rate = self._nobody if viewer.is_nobody else self._signed_in
        if rate is None:
            return
        key = f"requests:{network(address) if viewer.is_nobody else viewer.scope}"
        if not self._left.get(key):
            try:
                taken = await self._fetch(key, rate)
            except DatabaseError:
                # Nobody gets anything out of a database that is away; they are to read that, and not this.
                return
            # Others of the same caller may have fetched some meanwhile.
            self._left[key] = self._left.get(key, 0) + taken
        self._left[key] -= 1
        self._left.move_to_end(key)
        if len(self._left) > _CALLERS:
            self._left.popitem(last=False)

    @staticmethod
    async def _fetch(key: str, rate: Rate) -> int:
        several = max(min(_AT_ONCE, rate.burst // 10), 1)
        if several > 1 and await buckets.take(key, rate, count=several) is None:
            return several
        await _take(key, rate, "Too many requests.")
        return 1


def _per_minute(count: int) -> Rate | None:
    return Rate(burst=count, every=timedelta(minutes=1) / count) if count else None


async def _take(key: str, rate: Rate, message: str) -> None:
    wait = await buckets.take(key, rate)
    if wait is not None:
        seconds = math.ceil(wait.total_seconds())
        raise RateLimited(f"{message} Try again in {seconds} s.", retry_after_ms=seconds * 1000)
