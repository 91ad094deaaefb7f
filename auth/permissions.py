"""The table: what each root field asks of who is asking, and what an owner may do that others may not."""

from collections.abc import Callable
from dataclasses import dataclass

from auth.viewer import Viewer
from models.errors import Forbidden, Unauthenticated
from models.keys import ApiKeyScope
from models.store.database import Key


@dataclass(frozen=True, slots=True)
class Permission:
    """A rule with the sentence that the schema shows for it."""

    name: str
    sentence: str
    test: Callable[[Viewer], bool]

    def check(self, viewer: Viewer) -> None:
        """Raise `Unauthenticated` for nobody and `Forbidden` for somebody who may not."""
        if self.test(viewer):
            return
        if viewer.is_nobody:
            raise Unauthenticated("Sign in first: show an access token or an API key as a Bearer token.")
        raise Forbidden(f"Not allowed. {self.sentence}")


def _with_scope(scope: ApiKeyScope) -> Callable[[Viewer], bool]:
    return lambda viewer: viewer.is_person or scope in viewer.scopes


def _admin_or_scope(scope: ApiKeyScope) -> Callable[[Viewer], bool]:
    return lambda viewer: viewer.is_admin or scope in viewer.scopes


anyone = Permission("anyone", "Open to everyone, signed in or not.", lambda _: True)
signed_in = Permission("signed_in", "For people who are signed in.", lambda viewer: viewer.is_person)
readers = Permission(
    "readers", "For people who are signed in and API keys with scope READ.", _with_scope(ApiKeyScope.READ)
)
managers = Permission(
    "managers", "For people who are signed in and API keys with scope MANAGE.", _with_scope(ApiKeyScope.MANAGE)
)
collectors = Permission(
    "collectors", "For people who are signed in and API keys with scope COLLECT.", _with_scope(ApiKeyScope.COLLECT)
)
admins = Permission("admins", "For admins.", lambda viewer: viewer.is_admin)
rule_keepers = Permission(
    "rule_keepers", "For admins and API keys with scope MANAGE.", _admin_or_scope(ApiKeyScope.MANAGE)
)
operators = Permission("operators", "For admins and API keys with scope OPERATE.", _admin_or_scope(ApiKeyScope.OPERATE))
agents_themselves = Permission(
    "agents_themselves", "For API keys of an agent.", lambda viewer: viewer.agent is not None
)
overseers = Permission(
    "overseers",
    "For people who are signed in and API keys with scope READ that are no agent's.",
    lambda viewer: readers.test(viewer) and viewer.agent is None,
)
spenders = Permission(
    "spenders",
    "For people who are signed in, API keys with scope COLLECT and API keys of an agent.",
    lambda viewer: collectors.test(viewer) or agents_themselves.test(viewer),
)
agents_and_operators = Permission(
    "agents_and_operators",
    "For API keys of an agent, and for admins and API keys with scope OPERATE.",
    lambda viewer: agents_themselves.test(viewer) or operators.test(viewer),
)


def owner_limit(viewer: Viewer) -> Key | None:
    """Give the owner whose agents this viewer may change; None when it may change any (admins, managing keys)."""
    if viewer.is_admin or viewer.api_key is not None:
        return None
    return viewer.user
