"""Who may do what, as a table over every root field."""

import pytest
from graphql import GraphQLNonNull

from tests import factories
from tests.client import Client, GraphQLErrors
from tests.factories import Person
from tests.test_house import CORE

ID = "QWdlbnQ6NjU2NTY1NjU2NTY1NjU2NTY1NjU2NTY1"
MESSAGE = "TWVzc2FnZTo2NTY1NjU2NTY1NjU2NTY1NjU2NTY1NjU="
THREAD = "VGhyZWFkOjY1NjU2NTY1NjU2NTY1NjU2NTY1NjU2NQ=="
RESERVATION = "UmVzZXJ2YXRpb246NjU2NTY1NjU2NTY1NjU2NTY1NjU2NTY1"
BY = '{name: "Nobody"}'

# Each root field with arguments that find nothing, and those who are let in: u(ser), a(dmin), keys with scope
# c(ollect), r(ead), m(anage), o(perate), the key of an a(g)ent, which has scope READ too, and n(obody). R(ead): not g.
TABLE: dict[str, tuple[str, str]] = {
    "node": (f'node(id: "{ID}") {{ id }}', "uar"),
    "me": ("me { id }", "nuacrmo"),
    "users": ("users { totalCount }", "a"),
    "apiKeys": ("apiKeys { id }", "ua"),
    "agent": (f"agent(by: {BY}) {{ id }}", "uar"),
    "agents": ("agents { totalCount }", "uar"),
    "usage": ("usage { totals { cost } }", "uar"),
    "usageEvent": ('usageEvent(id: "1") { id }', "uar"),
    "usageSummary": ("usageSummary { since }", "uar"),
    "resetUsage": ('resetUsage(input: {confirm: ""}) { usageSummary { since } }', "a"),
    "prices": ("prices { totalCount }", "uar"),
    "setPrice": ('setPrice(input: {modelPrefix: "", prompt: 0, completion: 0}) { price { id } }', "a"),
    "deletePrice": (f'deletePrice(input: {{id: "{ID}"}}) {{ deletedId }}', "a"),
    "ratingFramework": ("ratingFramework { stars }", "nuacrmo"),
    "alerts": ("alerts { totalCount }", "uar"),
    "statistics": ("statistics { agents { total } }", "a"),
    "alertRules": ("alertRules { id }", "am"),
    "register": ('register(input: {email: "", name: "", password: ""}) { session { accessToken } }', "nuacrmo"),
    "refreshSession": ('refreshSession(input: {refreshToken: "x"}) { session { accessToken } }', "nuacrmo"),
    "login": ('login(input: {email: "", password: ""}) { session { accessToken } }', "nuacrmo"),
    "logout": ("logout { success }", "nuacrmo"),
    "updateProfile": ('updateProfile(input: {name: ""}) { user { id } }', "ua"),
    "changePassword": ('changePassword(input: {currentPassword: "", newPassword: ""}) { user { id } }', "ua"),
    "createUser": ('createUser(input: {email: "", name: "", password: ""}) { user { id } }', "a"),
    "updateUser": (f'updateUser(input: {{user: "{ID}"}}) {{ user {{ id }} }}', "a"),
    "createApiKey": ('createApiKey(input: {name: "", scopes: []}) { secret }', "ua"),
    "revokeApiKey": (f'revokeApiKey(input: {{id: "{ID}"}}) {{ apiKey {{ id }} }}', "ua"),
    "createAgent": ('createAgent(input: {name: ""}) { agent { id } }', "uam"),
    "updateAgent": (f"updateAgent(input: {{agent: {BY}}}) {{ agent {{ id }} }}", "uam"),
    "deleteAgent": (f"deleteAgent(input: {{agent: {BY}}}) {{ deletedId }}", "uam"),
    "importAgents": ('importAgents(input: {csv: "name"}) { created }', "uam"),
    "claimAgent": (f"claimAgent(input: {{agent: {BY}}}) {{ agent {{ id }} }}", "ua"),
    "rateAgent": (f"rateAgent(input: {{agent: {BY}, stars: 3}}) {{ agent {{ id }} }}", "ua"),
    "removeRating": (f"removeRating(input: {{agent: {BY}}}) {{ removedId }}", "ua"),
    "collectUsage": ("collectUsage(input: {events: []}) { accepted }", "uac"),
    "collectSnapshots": ("collectSnapshots(input: {agents: []}) { accepted }", "uac"),
    "agentVersion": (f'agentVersion(agent: {BY}, version: "1") {{ id }}', "uar"),
    "agentVersions": ("agentVersions { totalCount }", "uar"),
    "thread": (f'thread(id: "{THREAD}") {{ id }}', "uar"),
    "threads": ("threads { totalCount }", "uar"),
    "messages": ("messages { totalCount }", "uar"),
    "threadBudgets": ("threadBudgets { totalCount }", "uaR"),
    "defaultThreadTokens": ("defaultThreadTokens", "uar"),
    "reserveTokens": (
        f'reserveTokens(input: {{thread: "{THREAD}", tokens: 1, idempotencyKey: "k"}}) {{ budget {{ exhausted }} }}',
        "uacg",
    ),
    "settleTokens": (f'settleTokens(input: {{reservation: "{RESERVATION}"}}) {{ budget {{ exhausted }} }}', "uacg"),
    "extendReservation": (
        f'extendReservation(input: {{reservation: "{RESERVATION}"}}) {{ budget {{ exhausted }} }}',
        "uacg",
    ),
    "setThreadBudget": (
        f'setThreadBudget(input: {{thread: "{THREAD}", maxTokens: 1}}) {{ budget {{ exhausted }} }}',
        "ao",
    ),
    "runs": ("runs { totalCount }", "uar"),
    "runTimeline": ("runTimeline(days: 1) { totalRuns }", "uar"),
    "dashboard": ("dashboard { value }", "uar"),
    "recentActivity": ("recentActivity { action }", "uar"),
    "organism": ("organism { name }", "ao"),
    "capabilities": ("capabilities { name }", "ao"),
    "capability": ('capability(name: "x") { name }', "ao"),
    "reloadOrganism": ("reloadOrganism { changes { name } }", "ao"),
    # A server that an admin may stop is none to go on testing with; tests/test_organism.py does.
    "stopServer": ("stopServer { processes }", "a"),
    "injectMessage": (
        f'injectMessage(input: {{to: {BY}, payloadType: "", payload: {{}}}}) {{ message {{ id }} }}',
        "ao",
    ),
    "sendMessage": (f'sendMessage(input: {{to: {BY}, payloadType: "", payload: {{}}}}) {{ message {{ id }} }}', "g"),
    "acknowledgeMessage": (
        f'acknowledgeMessage(input: {{message: "{MESSAGE}", lease: ""}}) {{ message {{ id }} }}',
        "aog",
    ),
    "failMessage": (
        f'failMessage(input: {{message: "{MESSAGE}", lease: "", error: ""}}) {{ message {{ id }} }}',
        "aog",
    ),
    "pauseAgent": (f"pauseAgent(input: {{agent: {BY}}}) {{ agent {{ id }} }}", "ao"),
    "resumeAgent": (f"resumeAgent(input: {{agent: {BY}}}) {{ agent {{ id }} }}", "ao"),
    "killThread": (f'killThread(input: {{thread: "{THREAD}"}}) {{ thread {{ id }} }}', "ao"),
    "completeThread": (f'completeThread(input: {{thread: "{THREAD}"}}) {{ thread {{ id }} }}', "aog"),
    "registerAgent": ('registerAgent(input: {name: ""}) { created }', "uac"),
    "addAgentVersion": (f'addAgentVersion(input: {{agent: {BY}, version: "1"}}) {{ created }}', "uac"),
    "recordRuns": (f'recordRuns(input: {{agent: {BY}, version: "1", runs: []}}) {{ accepted }}', "uac"),
    "createAlertRule": (
        'createAlertRule(input: {name: "", metric: COST, window: DAY, threshold: "0"}) { alertRule { id } }',
        "am",
    ),
    "updateAlertRule": (f'updateAlertRule(input: {{id: "{ID}"}}) {{ alertRule {{ id }} }}', "am"),
    "deleteAlertRule": (f'deleteAlertRule(input: {{id: "{ID}"}}) {{ deletedId }}', "am"),
    "retryDelivery": (f'retryDelivery(input: {{id: "{ID}"}}) {{ delivery {{ id }} }}', "am"),
    "acknowledgeAlert": (f'acknowledgeAlert(input: {{id: "{ID}"}}) {{ alert {{ id }} }}', "ua"),
}
# These two say UNAUTHENTICATED of what they are given, whoever asks: everyone is let in and reads the same.
OPEN = {"login", "refreshSession"}
# The same for subscriptions; whoever is let in is told that what they ask for is nonsense.
WATCHED: dict[str, tuple[str, str]] = {
    "thresholdAlerts": ('thresholdAlerts(after: "rubbish") { id }', "uar"),
    "activity": ('activity(after: "rubbish") { cursor }', "uar"),
    "inbox": (f"inbox(agent: {BY}, maxUnacknowledged: 0) {{ lease }}", "aog"),
    "organismEvents": ('organismEvents(after: "rubbish") { at }', "ao"),
    "threadUpdates": ('threadUpdates(thread: "rubbish") { cursor }', "uar"),
}
CALLERS = ["n", "u", "a", "c", "r", "m", "o", "g"]


def is_let_in(caller: str, allowed: str) -> bool:
    """Whether the table lets somebody in; an agent's key may what its scope may, but for what says `R`."""
    return caller in allowed or (caller == "g" and "r" in allowed) or (caller == "r" and "R" in allowed)


def _roots() -> dict[str, str]:
    roots = {"query": CORE.query_type, "mutation": CORE.mutation_type}
    return {name: kind for kind, root in roots.items() if root for name in root.fields}


def test_the_table_has_every_field() -> None:
    assert set(TABLE) == set(_roots())
    assert CORE.subscription_type is not None
    assert set(WATCHED) == set(CORE.subscription_type.fields)


async def _client(caller: str, nobody: Client, user: Person, admin: Person) -> Client:
    scopes = {"c": "COLLECT", "r": "READ", "m": "MANAGE", "o": "OPERATE"}
    people = {"n": nobody, "u": user.client, "a": admin.client}
    if caller == "g":
        agent = {"name": "Agent", "discipline": "CREATIVE"}
        await admin.client.query(
            "mutation ($agent: CreateAgentInput!) { createAgent(input: $agent) { agent { id } } }", agent=agent
        )
        return await factories.api_key(admin, "READ", agent={"name": "Agent"})
    return people[caller] if caller in people else await factories.api_key(admin, scopes[caller])


@pytest.mark.parametrize("caller", CALLERS)
async def test_everyone_gets_what_the_table_says(client: Client, user: Person, admin: Person, caller: str) -> None:
    asking = await _client(caller, client, user, admin)
    refused = "UNAUTHENTICATED" if caller == "n" else "FORBIDDEN"
    assert CORE.query_type is not None
    never_null = {name for name, it in CORE.query_type.fields.items() if isinstance(it.type, GraphQLNonNull)}

    for name, kind in sorted(_roots().items(), key=lambda each: each[0] == "logout"):
        selection, allowed = TABLE[name]
        if name in OPEN or (name == "stopServer" and caller in allowed):
            continue
        reply = await asking.execute(f"{kind} {{ {selection} }}")
        if is_let_in(caller, allowed):
            assert not {"UNAUTHENTICATED", "FORBIDDEN", "INTERNAL_SERVER_ERROR"}.intersection(reply.codes), (
                name,
                reply,
            )
        else:
            assert reply.codes == [refused], (name, reply.body)
            # A field that is never null takes the whole answer with it.
            assert reply.body["data"] == (None if name in never_null else {name: None})


@pytest.mark.parametrize("caller", CALLERS)
@pytest.mark.parametrize("name", sorted(OPEN))
async def test_signing_in_is_open_to_everyone(
    client: Client, user: Person, admin: Person, caller: str, name: str
) -> None:
    document = f"mutation {{ {TABLE[name][0]} }}"
    asking = await _client(caller, client, user, admin)

    assert (await asking.execute(document)).body == (await client.execute(document)).body


@pytest.mark.parametrize("caller", CALLERS)
async def test_everyone_watches_what_the_table_says(client: Client, user: Person, admin: Person, caller: str) -> None:
    asking = await _client(caller, client, user, admin)

    for selection, allowed in WATCHED.values():
        with pytest.raises(GraphQLErrors) as caught:
            async with asking.subscribe(f"subscription {{ {selection} }}") as events:
                await anext(events)
        refused = "UNAUTHENTICATED" if caller == "n" else "FORBIDDEN"
        assert caught.value.code == ("BAD_USER_INPUT" if is_let_in(caller, allowed) else refused)


async def test_what_is_refused_leaves_the_rest_of_an_answer_alone(user: Person) -> None:
    reply = await user.client.execute("{ me { email } users { totalCount } }")

    assert reply.codes == ["FORBIDDEN"]
    assert reply.body["data"] == {"me": {"email": user.email}, "users": None}
