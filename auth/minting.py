"""Make and recognise API keys."""

import hashlib
import secrets
from collections.abc import Mapping
from datetime import datetime
from typing import Any, Final

from auth.viewer import Viewer
from models import agents, keys, text
from models.errors import Fault, Forbidden
from models.keys import ApiKeyFields, ApiKeyScope
from models.store.database import Key, Row

MARK: Final = "ahk_"
_PREFIX: Final = 8
_BYTES: Final = 32


class Minting:
    """Makes keys of 256 random bits, of which only the SHA-256 is stored."""

    async def mint(
        self,
        viewer: Viewer,
        *,
        name: str,
        scopes: list[ApiKeyScope],
        expires_at: datetime | None,
        agent: agents.Ref | None = None,
        now: datetime,
    ) -> tuple[Row, str]:
        """Make a key for the person who asks; gives its row and its secret, which is kept nowhere.

        `agent`: whose key it is to be; only its owner and admins make one. Raises `NotFound` and `Forbidden`.
        """
        if viewer.user is None:
            raise Forbidden("Only a person who is signed in mints keys.")
        speaks_for = await agents.require(agent, field="agent") if agent is not None else None
        if speaks_for is not None and not viewer.is_admin and speaks_for["owner"] != viewer.user:
            raise Forbidden("Only the owner of an agent, or an admin, makes keys for it.", field="agent")
        key = speaks_for["_id"] if speaks_for else None
        given = {"name": name, "scopes": scopes, "expires_at": expires_at, "agent": key}
        return await self.mint_for(viewer.user, given, is_admin=viewer.is_admin, now=now)

    async def mint_for(self, owner: Key, given: Mapping[str, Any], *, is_admin: bool, now: datetime) -> tuple[Row, str]:
        """Make a key for an owner with fields of `ApiKeyFields`, without asking who wants it; for the command line.

        Raises `Forbidden` for scopes that the owner's role does not have, `BadInput` with every fault.
        """
        if not is_admin and (refused := keys.FOR_ADMINS.intersection(given["scopes"])):
            raise Forbidden(f"Only an admin has keys with scope {', '.join(sorted(refused))}.", field="scopes")
        expires_at = given["expires_at"]
        late = expires_at is not None and expires_at <= now
        faults = [Fault(("expires_at",), "A key expires in the future.")] if late else []
        if given.get("agent") is not None and keys.FOR_ADMINS.intersection(given["scopes"]):
            faults.append(Fault(("scopes",), "The key of an agent has neither MANAGE nor OPERATE: it speaks for it."))
        values = text.validate(ApiKeyFields, given, partial=False, faults=faults)
        prefix = MARK + secrets.token_hex(_PREFIX // 2)
        secret = f"{prefix}_{secrets.token_urlsafe(_BYTES)}"
        row = {
            "_id": Key(),
            **values,
            "prefix": prefix,
            "hash": digest(secret),
            "owner": owner,
            "created_at": now,
            "last_used_at": None,
            "revoked_at": None,
        }
        await keys.add(row)
        return row, secret


def digest(secret: str) -> str:
    """Hash a key's secret. It is random, so that a fast hash keeps it."""
    return hashlib.sha256(secret.encode("utf-8", "surrogatepass")).hexdigest()
