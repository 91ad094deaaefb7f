"""Webhooks: a signed POST to a rule's URL, which must not lead into our own network."""

import socket
import time
from collections.abc import Mapping
from ipaddress import IPv4Address, IPv6Address, ip_address
from typing import Any, Final

import aiohttp
import orjson

from models.alerts.signing import Signing
from models.store.database import Row
from workers import delivery, letters
from workers.delivery import NotTaken, Withdrawn

_TIMEOUT_S: Final = 10.0
_GONE: Final = 410
_REDIRECTS: Final = range(300, 400)


class _Inward(OSError):
    """An address of a network that is not everybody's."""


def session(*, inward: bool = False) -> aiohttp.ClientSession:
    """Open what webhooks are posted over: where a name leads is looked at when the connection is made.

    `inward`: whether loopback, private and link-local addresses are allowed.
    """
    factory = None if inward else _outward_socket
    # Each try looks the name up anew, and no connection outlives it.
    connector = aiohttp.TCPConnector(socket_factory=factory, force_close=True, use_dns_cache=False)
    return aiohttp.ClientSession(
        connector=connector,
        timeout=aiohttp.ClientTimeout(total=_TIMEOUT_S),
        cookie_jar=aiohttp.DummyCookieJar(),
        headers={"User-Agent": "AgentHub", "Content-Type": "application/json"},
    )


class Webhooks:
    """Posts alerts. Redirects are not followed."""

    def __init__(self, session: aiohttp.ClientSession, signing: Signing) -> None:
        self._session = session
        self._signing = signing

    async def send(self, item: Row) -> None:
        """Post one alert to its rule's URL as it is now."""
        found = await delivery.notice(item)
        url, rule = found.rule["webhook_url"], found.rule["_id"]
        if url is None:
            raise Withdrawn("The rule has no webhookUrl any more.")
        body = orjson.dumps(letters.body(found))
        signed = self._signing.headers(
            rule, of="alert rule", message=item["_id"], timestamp=int(time.time()), body=body
        )
        await post(self._session, url, body=body, headers=signed)


async def post(session: aiohttp.ClientSession, url: str, *, body: bytes, headers: Mapping[str, str]) -> None:
    """Post to a receiver that takes it by any status of success. Raises `NotTaken`."""
    try:
        async with session.post(url, data=body, headers=headers, allow_redirects=False) as response:
            status = response.status
    except _Inward:
        raise NotTaken("The URL leads to an address that is not public.", for_good=True) from None
    except aiohttp.ClientConnectorError as error:
        if isinstance(error.os_error, _Inward):
            raise NotTaken("The URL leads to an address that is not public.", for_good=True) from None
        raise NotTaken("The receiver could not be reached.") from None
    except aiohttp.InvalidURL:
        raise NotTaken("The URL cannot be used.", for_good=True) from None
    except aiohttp.ClientError as error:
        raise NotTaken(f"The receiver could not be reached ({type(error).__name__}).") from None
    if status in _REDIRECTS:
        raise NotTaken(f"The receiver answered with status {status}; redirects are not followed.")
    if not response.ok:
        raise NotTaken(f"The receiver answered with status {status}.", for_good=status == _GONE)


def _outward_socket(found: tuple[Any, ...]) -> socket.socket:
    """Open a socket for an address just resolved, unless it leads inward: nothing can change it after this."""
    family, kind, protocol, _, address = found
    if not is_public(str(address[0])):
        raise _Inward("an address that is not public")
    return socket.socket(family, kind, protocol)


def is_public(text: str) -> bool:
    """Whether an address is one of the public internet, also where it wraps another one."""
    address: IPv4Address | IPv6Address = ip_address(text.partition("%")[0])
    if isinstance(address, IPv6Address):
        wrapped = address.ipv4_mapped or address.sixtofour or _nat64(address)
        if wrapped is not None:
            return is_public(str(wrapped))
    return address.is_global and not address.is_multicast


def _nat64(address: IPv6Address) -> IPv4Address | None:
    # RFC 6052: 64:ff9b::/96 holds an IPv4 address in its last four bytes.
    return IPv4Address(int(address) & 0xFFFF_FFFF) if int(address) >> 32 == 0x0064_FF9B << 64 else None
