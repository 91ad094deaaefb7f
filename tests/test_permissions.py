"""Who may do what, as a table over every root field."""

from typing import Any

import pytest

from tests import factories
from tests.client import Client
from tests.factories import Person
from tests.test_house import CORE

ID = "QWdlbnQ6NjU2NTY1NjU2NTY1NjU2NTY1NjU2NTY1"
BY = '{name: "Nobody"}'

# Each root field with arguments that find nothing, and those who are let in: u(ser), a(dmin), keys with scope
# c(ollect), r(ead), m(anage), and n(obody).
TABLE: dict[str, tuple[str, str]] = {
    "node": (f'node(id: "{ID}") {{ id }}', "uar"),
    "me": ("me { id }", "nuacrm"),
    "users": ("users { totalCount }", "a"),
    "apiKeys": ("apiKeys { id }", "ua"),
    "agent": (f"agent(by: {BY}) {{ id }}", "uar"),
    "agents": ("agents { totalCount }", "uar"),
    "usage": ("usage { totals { cost } }", "uar"),
    "ratingFramework": ("ratingFramework { stars }", "nuacrm"),
    "alerts": ("alerts { totalCount }", "uar"),
    "alertRules": ("alertRules { id }", "am"),
    "register": ('register(input: {email: "", name: "", password: ""}) { session { accessToken } }', "nuacrm"),
    "refreshSession": ('refreshSession(input: {refreshToken: "x"}) { session { accessToken } }', ""),
    "login": ('login(input: {email: "", password: ""}) { session { accessToken } }', ""),
    "logout": ("logout { success }", "nuacrm"),
    "updateProfile": ('updateProfile(input: {name: ""}) { user { id } }', "ua"),
    "changePassword": ('changePassword(input: {currentPassword: "", newPassword: ""}) { user { id } }', "ua"),
    "createUser": ('createUser(input: {email: "", name: "", password: ""}) { user { id } }', "a"),
    "updateUser": (f'updateUser(input: {{user: "{ID}"}}) {{ user {{ id }} }}', "a"),
    "createApiKey": ('createApiKey(input: {name: "", scopes: []}) { secret }', "ua"),
    "revokeApiKey": (f'revokeApiKey(input: {{id: "{ID}"}}) {{ apiKey {{ id }} }}', "ua"),
    "createAgent": ('createAgent(input: {name: ""}) { agent { id } }', "uam"),
    "updateAgent": (f"updateAgent(input: {{agent: {BY}}}) {{ agent {{ id }} }}", "uam"),
    "deleteAgent": (f"deleteAgent(input: {{agent: {BY}}}) {{ deletedId }}", "uam"),
    "claimAgent": (f"claimAgent(input: {{agent: {BY}}}) {{ agent {{ id }} }}", "ua"),
    "rateAgent": (f"rateAgent(input: {{agent: {BY}, stars: 3}}) {{ agent {{ id }} }}", "ua"),
    "removeRating": (f"removeRating(input: {{agent: {BY}}}) {{ removedId }}", "ua"),
    "collectUsage": ("collectUsage(input: {events: []}) { accepted }", "uac"),
    "createAlertRule": (
        'createAlertRule(input: {name: "", metric: COST, window: DAY, threshold: "0"}) { alertRule { id } }',
        "am",
    ),
    "updateAlertRule": (f'updateAlertRule(input: {{id: "{ID}"}}) {{ alertRule {{ id }} }}', "am"),
    "deleteAlertRule": (f'deleteAlertRule(input: {{id: "{ID}"}}) {{ deletedId }}', "am"),
    "acknowledgeAlert": (f'acknowledgeAlert(input: {{id: "{ID}"}}) {{ alert {{ id }} }}', "ua"),
}
# What these two say to a wrong token is what others say to nobody.
OPEN = {"login", "refreshSession"}


def _roots() -> dict[str, str]:
    roots = {"query": CORE.query_type, "mutation": CORE.mutation_type}
    return {name: kind for kind, root in roots.items() if root for name in root.fields}


def test_the_table_has_every_field() -> None:
    assert set(TABLE) == set(_roots())


@pytest.mark.parametrize("caller", ["n", "u", "a", "c", "r", "m"])
async def test_everyone_gets_what_the_table_says(client: Client, user: Person, admin: Person, caller: str) -> None:
    scopes = {"c": "COLLECT", "r": "READ", "m": "MANAGE"}
    clients: dict[str, Any] = {"n": client, "u": user.client, "a": admin.client}
    for letter, scope in scopes.items():
        clients[letter] = await factories.api_key(admin, scope)
    refused = "UNAUTHENTICATED" if caller == "n" else "FORBIDDEN"

    for name, kind in sorted(_roots().items(), key=lambda each: each[0] == "logout"):
        if name in OPEN:
            continue
        selection, allowed = TABLE[name]
        reply = await clients[caller].execute(f"{kind} {{ {selection} }}")
        assert (refused in reply.codes) == (caller not in allowed), (name, reply.body)
