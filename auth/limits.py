"""Tries and rates, shared by all processes: how often somebody may guess."""

import hashlib
import math
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta
from ipaddress import ip_address, ip_network
from typing import Final

from models import sessions, users
from models.errors import RateLimited
from models.store import buckets
from models.store.buckets import Rate
from models.store.database import Key

# An account can be guessed at some 3,000 times a day, from however many addresses.
PER_ACCOUNT: Final = Rate(burst=10, every=timedelta(seconds=30))
PER_ADDRESS: Final = Rate(burst=30, every=timedelta(seconds=30))
REGISTRATIONS: Final = Rate(burst=100, every=timedelta(seconds=20))


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
    places = [(f"login:{account}", PER_ACCOUNT), (f"login from:{near}", PER_ADDRESS)]
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
    return str(found) if found.version == 4 else str(ip_network(f"{found}/64", strict=False))  # noqa: PLR2004


async def _take(key: str, rate: Rate, message: str) -> None:
    wait = await buckets.take(key, rate)
    if wait is not None:
        seconds = math.ceil(wait.total_seconds())
        raise RateLimited(f"{message} Try again in {seconds} s.", retry_after_ms=seconds * 1000)


def _network(address: str) -> str:
    try:
        found = ip_address(address)
    except ValueError:
        return address
    # Whoever has one IPv6 address has a whole /64.
    return str(found) if found.version == 4 else str(ip_network(f"{found}/64", strict=False))  # noqa: PLR2004
