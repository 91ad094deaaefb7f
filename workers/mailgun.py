"""E-mail through Mailgun's HTTP API."""

from typing import Final

import aiohttp

from models.store.database import Row
from workers import delivery, letters
from workers.delivery import NotTaken, Withdrawn

_TIMEOUT_S: Final = 10.0
_OK: Final = 200
_BAD_REQUEST: Final = 400


def session() -> aiohttp.ClientSession:
    """Open what letters are sent over."""
    return aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=_TIMEOUT_S))


class Mailgun:
    """Sends letters about alerts; without a key and a domain it withdraws them."""

    def __init__(
        self, session: aiohttp.ClientSession, *, key: str | None, domain: str | None, sender: str, base_url: str
    ) -> None:
        """`sender`: as in `From`; `base_url`: without the version."""
        self._session = session
        self._key = key
        self._domain = domain
        self._sender = sender
        self._url = f"{base_url.rstrip('/')}/v3/{domain}/messages"

    async def send(self, item: Row) -> None:
        """Send one letter to one person; its Message-Id stays the same for every try."""
        if not self._key or not self._domain:
            raise Withdrawn("E-mail is not set up here: see MAILGUN_API_KEY and MAILGUN_DOMAIN.")
        person = await delivery.recipient(item)
        letter = letters.letter(await delivery.notice(item))
        form = {
            "from": self._sender,
            "to": person["email"],
            "subject": letter.subject,
            "text": letter.text,
            "html": letter.html,
            "h:Message-Id": f"<{item['_id'].replace(':', '.')}@{self._domain}>",
        }
        shown = {"Authorization": aiohttp.encode_basic_auth("api", self._key)}
        try:
            async with self._session.post(self._url, data=form, headers=shown, allow_redirects=False) as response:
                if response.status != _OK:
                    raise NotTaken(
                        f"Mailgun answered with status {response.status}.", for_good=response.status == _BAD_REQUEST
                    )
        except aiohttp.ClientError as error:
            raise NotTaken(f"Mailgun could not be reached ({type(error).__name__}).") from None
