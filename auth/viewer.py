"""Viewer: the person, the key or the nobody that a request speaks for."""

from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

from models.errors import Forbidden
from models.keys import ApiKeyScope
from models.store.database import Key
from models.users import Role


@dataclass(frozen=True, slots=True)
class Viewer:
    """Who is asking. Nobody, when neither `user` nor `api_key` is set; an agent, when its key was shown."""

    user: Key | None = None
    role: Role | None = None
    session: Key | None = None
    api_key: Key | None = None
    scopes: frozenset[ApiKeyScope] = frozenset()
    agent: Key | None = None
    expires_at: datetime | None = None

    @property
    def is_person(self) -> bool:
        """Whether a person has signed in."""
        return self.user is not None

    @property
    def is_admin(self) -> bool:
        """Whether it is a person with the role ADMIN."""
        return self.role is Role.ADMIN

    @property
    def is_nobody(self) -> bool:
        """Whether nothing was shown that says who asks."""
        return self.user is None and self.api_key is None

    def require_user(self) -> Key:
        """Give the person's key. Raises `Forbidden` when it is no person."""
        if self.user is None:
            raise Forbidden("For people who are signed in.")
        return self.user

    @property
    def scope(self) -> str:
        """Name the viewer for what is kept per caller."""
        return f"user:{self.user}" if self.user else f"key:{self.api_key}" if self.api_key else "nobody"


class _Anybody:
    """Stands where a person or key would: there is one, and nobody may ask who."""

    __slots__ = ()


def anybody_like(viewer: Viewer) -> Viewer:
    """Give a viewer with the same rights and no identity: nothing can be read from the database by who it is."""
    unknown: Any = _Anybody()
    return replace(
        viewer, user=unknown if viewer.user else None, api_key=unknown if viewer.api_key else None, session=None
    )


NOBODY = Viewer()
