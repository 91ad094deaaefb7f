"""How webhooks are signed: Standard Webhooks, with a secret for each receiver that is derived and stored nowhere."""

import base64
import hashlib
import hmac
from collections.abc import Sequence

from models.store.database import Key


class Signing:
    """Derives each receiver's secret from the service's own, and signs with it; `of` says what kind of receiver it is.

    The headers are those of Standard Webhooks 1.0 (`webhook-id`, `webhook-timestamp`, `webhook-signature`).
    """

    def __init__(self, key: str, *, older: Sequence[str] = ()) -> None:
        """`older`: former keys; messages are signed with their secrets too, so that receivers can change over."""
        self._keys = (key, *older)

    def secret(self, key: Key, *, of: str) -> str:
        """Give the secret that a receiver checks signatures with."""
        return f"whsec_{base64.b64encode(_derived(self._keys[0], key, of)).decode()}"

    def headers(self, key: Key, *, of: str, message: str, timestamp: int, body: bytes) -> dict[str, str]:
        """Sign a message: its id, the seconds since 1970, and its body."""
        signed = f"{message}.{timestamp}.".encode() + body
        signatures = [hmac.digest(_derived(secret, key, of), signed, "sha256") for secret in self._keys]
        return {
            "webhook-id": message,
            "webhook-timestamp": str(timestamp),
            "webhook-signature": " ".join(f"v1,{base64.b64encode(each).decode()}" for each in signatures),
        }


def _derived(secret: str, key: Key, of: str) -> bytes:
    return hmac.digest(secret.encode(), f"webhooks of {of} {key}".encode(), hashlib.sha256)
