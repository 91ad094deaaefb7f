"""Alerts: raised once, in order, live, and again after a break."""

import asyncio
from datetime import UTC, datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

import pytest

from graph.language.nodes import decode
from models.alerts import rules
from models.alerts.raised import Alert, AlertState
from models.errors import TooSlow
from models.store import database, sequences
from models.store.commits import Commits
from models.store.database import Database, Row, Session
from models.store.live import Live
from models.store.outbox import OutboxItem
from models.usage.counting import Batch, Counting
from models.usage.events import Event, UsageEvent
from server.settings import Settings
from tests.client import Client, GraphQLErrors
from tests.factories import Person
from tests.test_agents import create, refusal
from tests.test_usage import collect, event

CREATE_RULE = """
mutation ($input: CreateAlertRuleInput!) {
  createAlertRule(input: $input) {
    alertRule {
      id name metric window threshold percents cooldownHours agent { name } discipline project channels webhookUrl
      enabled
    }
  }
}
"""
UPDATE_RULE = """
mutation ($input: UpdateAlertRuleInput!) {
  updateAlertRule(input: $input) { alertRule { threshold percents enabled } }
}
"""
DELETE_RULE = "mutation ($input: DeleteAlertRuleInput!) { deleteAlertRule(input: $input) { deletedId } }"
RULES = "{ alertRules { id name threshold cooldownHours channels } }"
ALERTS = """
query ($agent: AgentBy, $acknowledged: Boolean, $first: Int, $after: String) {
  alerts(agent: $agent, acknowledged: $acknowledged, first: $first, after: $after) {
    totalCount
    pageInfo { endCursor }
    nodes {
      id cursor agent { name } rule { name } metric window threshold percent value windowStart
      acknowledgedBy { email }
    }
  }
}
"""
ACKNOWLEDGE = """
mutation ($id: ID!) { acknowledgeAlert(input: {id: $id}) { alert { acknowledgedAt acknowledgedBy { email } } } }
"""
WATCH = """
subscription ($after: String, $agents: [AgentBy!], $disciplines: [Discipline!]) {
  thresholdAlerts(after: $after, agents: $agents, disciplines: $disciplines) {
    cursor value percent agent { name } rule { name }
  }
}
"""
LIFETIME = {"name": "Tokens", "metric": "TOTAL_TOKENS", "window": "LIFETIME", "threshold": "100"}


async def rule(person: Person, **values: Any) -> str:
    """Add a rule and give its id."""
    data = await person.client.query(CREATE_RULE, input={**LIFETIME, **values})
    made: str = data["createAlertRule"]["alertRule"]["id"]
    return made


async def alerts(client: Client, **variables: Any) -> list[dict[str, Any]]:
    """List alerts, oldest first."""
    found: list[dict[str, Any]] = (await client.query(ALERTS, first=100, **variables))["alerts"]["nodes"]
    return found[::-1]


async def test_an_alert_is_raised_once_past_the_threshold(admin: Person) -> None:
    await rule(admin)

    await collect(admin.client, event("1", promptTokens=95, completionTokens=5))
    assert await alerts(admin.client) == []
    for number in range(2, 6):
        await collect(admin.client, event(str(number)))

    (alert,) = await alerts(admin.client)
    assert (alert["agent"], alert["rule"]) == ({"name": "Scout"}, {"name": "Tokens"})
    assert (alert["threshold"], alert["percent"], alert["value"], alert["windowStart"]) == ("100", 100, "115", None)


async def test_each_percent_speaks_once_however_events_are_cut(admin: Person) -> None:
    await rule(admin, percents=[95, 80, 100, 80])

    await collect(admin.client, event("1", promptTokens=80, completionTokens=0))
    assert [each["percent"] for each in await alerts(admin.client)] == [80]
    await collect(admin.client, event("2", promptTokens=500, completionTokens=0), event("3"))

    assert [each["percent"] for each in await alerts(admin.client)] == [80, 95, 100]


@pytest.mark.parametrize(
    ("window", "start"),
    [
        ("HOUR", "2026-05-06T10:00:00Z"),
        ("DAY", "2026-05-06T00:00:00Z"),
        ("WEEK", "2026-05-04T00:00:00Z"),
        ("MONTH", "2026-05-01T00:00:00Z"),
    ],
)
async def test_a_window_counts_its_own_events_and_is_armed_again_by_the_next(
    admin: Person, window: str, start: str
) -> None:
    await rule(admin, window=window)
    await collect(admin.client, event("before", at="2026-04-01T00:00:00Z", promptTokens=90))
    await collect(admin.client, event("1", at="2026-05-06T10:05:00Z", promptTokens=60))
    assert await alerts(admin.client) == []

    await collect(admin.client, event("2", at="2026-05-06T10:55:00Z", promptTokens=60, model="other"))
    await collect(admin.client, event("3", at="2026-05-06T10:56:00Z", promptTokens=60))
    await collect(admin.client, event("4", at="2026-06-20T10:00:00Z", promptTokens=101))

    first, second = await alerts(admin.client)
    assert (first["windowStart"], first["value"]) == (start, "130")
    assert second["value"] == "106"


async def test_scopes_choose_the_agents(admin: Person) -> None:
    await create(admin.client, "Mine", project="P", discipline="CREATIVE")
    await create(admin.client, "Other", project="Q")
    await rule(admin, name="agent", agent={"name": "Mine"})
    await rule(admin, name="project", project="Q")
    await rule(admin, name="discipline", discipline="CREATIVE")
    await rule(admin, name="off", enabled=False)

    for name in ("Mine", "Other"):
        await collect(admin.client, event(name, agent={"name": name}, promptTokens=200))

    assert {(each["rule"]["name"], each["agent"]["name"]) for each in await alerts(admin.client)} == {
        ("agent", "Mine"),
        ("discipline", "Mine"),
        ("project", "Other"),
    }


async def test_cost_is_measured_in_dollars(admin: Person) -> None:
    await rule(admin, metric="COST", threshold="1.5")

    await collect(admin.client, event("1", cost="1.500000001"))

    (alert,) = await alerts(admin.client)
    assert (alert["threshold"], alert["value"]) == ("1.5", "1.500000001")


@pytest.mark.parametrize(
    ("values", "field"),
    [
        ({"threshold": "0"}, "threshold"),
        ({"threshold": "-5"}, "threshold"),
        ({"threshold": "1.5"}, "threshold"),
        ({"metric": "COST", "threshold": "0.0000000001"}, "threshold"),
        ({"percents": []}, "percents"),
        ({"percents": [0]}, "percents"),
        ({"percents": [1001]}, "percents"),
        ({"cooldownHours": 0}, "cooldownHours"),
        ({"name": ""}, "name"),
        ({"channels": ["WEBHOOK"]}, "webhookUrl"),
        ({"channels": ["WEBHOOK"], "webhookUrl": "ftp://example.com"}, "webhookUrl"),
        ({"agent": {"name": "Nobody"}}, "agent"),
    ],
)
async def test_a_rule_that_cannot_be_is_refused(admin: Person, values: dict[str, Any], field: str) -> None:
    error = await refusal(admin.client, CREATE_RULE, input={**LIFETIME, **values})

    assert error.code in {"BAD_USER_INPUT", "NOT_FOUND"}
    assert error.field == field
    assert (await admin.client.query(RULES))["alertRules"] == []


async def test_a_changed_threshold_speaks_again(admin: Person) -> None:
    identifier = await rule(admin)
    await collect(admin.client, event("1", promptTokens=150))
    data = await admin.client.query(UPDATE_RULE, input={"id": identifier, "threshold": "200"})
    assert data["updateAlertRule"]["alertRule"] == {"threshold": "200", "percents": [100], "enabled": True}

    await collect(admin.client, event("2", promptTokens=10))
    assert len(await alerts(admin.client)) == 1
    await collect(admin.client, event("3", promptTokens=100))

    assert [each["threshold"] for each in await alerts(admin.client)] == ["100", "200"]


async def test_a_deleted_rule_is_silent_and_its_alerts_stay(admin: Person) -> None:
    identifier = await rule(admin)
    await collect(admin.client, event("1", promptTokens=150))

    await admin.client.query(DELETE_RULE, input={"id": identifier})
    await collect(admin.client, event("2", agent={"name": "Second"}, promptTokens=150))

    (alert,) = await alerts(admin.client)
    assert alert["rule"] is None
    assert (await refusal(admin.client, DELETE_RULE, input={"id": identifier})).code == "NOT_FOUND"


async def test_only_admins_write_rules_and_only_they_see_them(admin: Person, user: Person) -> None:
    identifier = await rule(admin, channels=["WEBHOOK"], webhookUrl="https://example.com/secret")
    await collect(admin.client, event("1", promptTokens=150))

    for document, given in (
        (CREATE_RULE, LIFETIME),
        (UPDATE_RULE, {"id": identifier, "enabled": False}),
        (DELETE_RULE, {"id": identifier}),
    ):
        assert (await refusal(user.client, document, input=given)).code == "FORBIDDEN"
    reply = await user.client.execute(RULES)
    assert reply.body["data"] == {"alertRules": None}
    assert (await alerts(user.client))[0]["rule"] is None
    assert (await refusal(user.client, "query ($id: ID!) { node(id: $id) { id } }", id=identifier)).code == "FORBIDDEN"


async def test_an_alert_is_acknowledged_by_the_first_who_does(admin: Person, user: Person) -> None:
    await rule(admin)
    await collect(admin.client, event("1", promptTokens=150))
    (alert,) = await alerts(user.client, acknowledged=False)

    for person in (user, admin):
        data = await person.client.query(ACKNOWLEDGE, id=alert["id"])
        assert data["acknowledgeAlert"]["alert"]["acknowledgedBy"] == {"email": user.email}

    assert await alerts(user.client, acknowledged=False) == []
    assert len(await alerts(user.client, acknowledged=True)) == 1
    assert (await refusal(user.client, ACKNOWLEDGE, id="QWxlcnQ6OTk5OTk5OTk=")).code == "NOT_FOUND"
    assert (await refusal(user.client, ACKNOWLEDGE, id=user.id)).code == "BAD_USER_INPUT"


async def test_a_message_for_each_channel_is_written_with_the_alert(admin: Person, store: Database) -> None:
    await rule(admin, channels=["EMAIL", "WEBHOOK"], webhookUrl="http://127.0.0.1:9/hook")

    await collect(admin.client, event("1", promptTokens=150))

    alert = await database.collection(Alert).find_one({})
    written = await database.collection(OutboxItem).find({}).sort("_id", 1).to_list(None)
    assert alert is not None
    number, person = alert["_id"], decode(admin.id, "User")
    assert [(each["_id"], each["kind"], each["payload"]) for each in written] == [
        (f"alert:{number}:email:{person}", "EMAIL", {"alert": number, "user": person}),
        (f"alert:{number}:webhook", "WEBHOOK", {"alert": number}),
    ]


async def test_a_cooldown_repeats_the_highest_percent_and_no_lower_one(store: Database) -> None:
    now = datetime.now(UTC)
    values = {**LIFETIME, "threshold": 100, "percents": [80, 100], "cooldown_hours": 1.0}
    values = {**values, "metric": rules.AlertMetric.TOTAL_TOKENS, "window": rules.AlertWindow.LIFETIME}
    await rules.create(values, now=now)

    async def use(key: str) -> list[int]:
        async with Commits(UsageEvent) as commits:
            report = Batch([Event(source="s", id=key, agent="Scout", prompt_tokens=150)], now)
            await commits.submit(Counting(ZoneInfo("UTC")), report)
        found = await database.collection(Alert).find({}).sort("_id", 1).to_list(None)
        return [each["percent"] for each in found]

    assert await use("1") == [80, 100]
    assert await use("2") == [80, 100]
    # An hour passes, as the database sees it.
    hour_ago = now - timedelta(hours=1, seconds=1)
    await database.collection(AlertState).update_many({}, {"$set": {"spoken.80": hour_ago, "spoken.100": hour_ago}})
    assert await use("3") == [80, 100, 100]
    assert await use("4") == [80, 100, 100]


async def test_under_any_concurrency_an_alert_is_raised_once(admin: Person) -> None:
    await rule(admin)

    await asyncio.gather(
        *(collect(admin.client, *(event(f"{batch}-{n}", promptTokens=30) for n in range(5))) for batch in range(20))
    )

    assert len(await alerts(admin.client)) == 1


async def test_subscribers_hear_alerts_live_and_resume_without_gap(admin: Person, user: Person) -> None:
    await create(user.client, "Muse", discipline="CREATIVE")
    await rule(admin)
    async with (
        user.client.subscribe(WATCH) as everything,
        user.client.subscribe(WATCH, disciplines=["CREATIVE"]) as creative,
        user.client.subscribe(WATCH, agents=[{"name": "Muse"}]) as one,
    ):
        # An answer to each socket's first event proves that it listens; until then the alert may pass unheard.
        heard = [asyncio.ensure_future(anext(each)) for each in (everything, creative, one)]
        number = 0
        while not all(each.done() for each in heard):
            number += 1
            await admin.client.query(UPDATE_RULE, input={"id": await _rule_id(admin), "threshold": str(100 + number)})
            await collect(admin.client, event(f"muse {number}", agent={"name": "Muse"}, promptTokens=200))
            await asyncio.wait(heard, timeout=0.2)
        assert {each.result()["thresholdAlerts"]["agent"]["name"] for each in heard} == {"Muse"}
        last = heard[0].result()["thresholdAlerts"]["cursor"]

    for name in ("A", "B", "C"):
        await collect(admin.client, event(name, agent={"name": name}, promptTokens=1000))
    everyone = [each["agent"]["name"] for each in await alerts(user.client)]

    async with user.client.subscribe(WATCH, after=last) as again:
        missed = [(await anext(again))["thresholdAlerts"] for _ in range(3)]
        await collect(admin.client, event("D", agent={"name": "D"}, promptTokens=1000))
        missed.append((await anext(again))["thresholdAlerts"])
    heard_names = [each["agent"]["name"] for each in missed if each["agent"]["name"] != "Muse"]
    assert heard_names == ["A", "B", "C", "D"][: len(heard_names)]
    assert everyone[-3:] == ["A", "B", "C"]


async def _rule_id(person: Person) -> str:
    found: str = (await person.client.query(RULES))["alertRules"][0]["id"]
    return found


@pytest.mark.parametrize(
    ("variables", "code", "field"),
    [
        ({"after": "rubbish"}, "BAD_USER_INPUT", "after"),
        ({"agents": [{"name": "Nobody"}]}, "NOT_FOUND", "agents.0"),
        ({"agents": [{"id": "rubbish"}]}, "BAD_USER_INPUT", "agents.0.id"),
    ],
)
async def test_a_subscription_that_cannot_be_is_refused(
    user: Person, variables: dict[str, Any], code: str, field: str
) -> None:
    async with user.client.subscribe(WATCH, **variables) as events:
        with pytest.raises(GraphQLErrors) as caught:
            await anext(events)

    assert (caught.value.code, caught.value.field) == (code, field)


async def test_nobody_hears_nothing(client: Client) -> None:
    async with client.subscribe(WATCH) as events:
        with pytest.raises(GraphQLErrors) as caught:
            await anext(events)

    assert caught.value.code == "UNAUTHENTICATED"


async def _alert(number_of: int, store: Database) -> None:
    async def body(session: Session) -> None:
        now = datetime.now(UTC)
        for number in await sequences.take("alerts", number_of, session=session):
            row = {"_id": number, "agent": None, "discipline": None, "rule": None, "raised_at": now}
            await database.collection(Alert).insert_one(row, session=session)

    await database.transaction(Alert, body)


async def test_a_reader_that_falls_behind_is_told_and_let_go(store: Database) -> None:
    async with Live(store, [Alert], bound=3, every_s=0.05) as live:
        slow = live.follow(Alert, after=None)
        first = asyncio.ensure_future(anext(slow))
        witness = live.follow(Alert, after=None)
        awaited = asyncio.ensure_future(anext(witness))
        await asyncio.wait([first, awaited], timeout=0.01)
        await _alert(1, store)
        await asyncio.gather(first, awaited)

        await _alert(2, store)
        seen = [await anext(witness) for _ in range(2)]
        await _alert(3, store)
        seen += [await anext(witness) for _ in range(3)]
        # The queue overflowed; one burst later the reader still has not stirred.
        await _alert(1, store)
        seen.append(await anext(witness))

        with pytest.raises(TooSlow):
            await anext(slow)
        # It comes back with its last number, and has missed none.
        resumed = live.follow(Alert, after=first.result()["_id"])
        assert [(await anext(resumed))["_id"] for _ in range(6)] == [row["_id"] for row in seen]


async def test_a_burst_larger_than_the_bound_loses_no_reader_and_no_alert(store: Database) -> None:
    async with Live(store, [Alert], bound=3, every_s=0.05) as live:
        reader = live.follow(Alert, after=None)
        first = asyncio.ensure_future(anext(reader))
        await asyncio.wait([first], timeout=0.01)

        await _alert(40, store)

        numbers = [(await first)["_id"], *[(await anext(reader))["_id"] for _ in range(39)]]
        assert numbers == list(range(numbers[0], numbers[0] + 40))


class _Pen:
    """Tells at once while it is not lifted, and writes down what it has told."""

    def __init__(self, told: list[tuple[str, int]], made: list[int]) -> None:
        self.told = told
        self.made = made
        self.is_lifted = False
        self.heard = asyncio.Event()

    def key(self) -> str:
        return "everybody"

    async def answer(self, row: Row) -> int:
        self.made.append(row["_id"])
        return int(row["_id"])

    def tell(self, answer: int) -> bool:
        self.heard.set()
        if not self.is_lifted:
            self.told.append(("at once", answer))
        return not self.is_lifted


async def test_who_waits_is_told_at_once_and_misses_nothing_when_it_cannot_be(store: Database) -> None:
    told: list[tuple[str, int]] = []
    made: list[int] = []
    async with Live(store, [Alert], bound=3, every_s=0.05) as live:
        pens = [_Pen(told, made) for _ in range(2)]
        followed = [live.follow(Alert, after=None, teller=pen) for pen in pens]
        woken = [asyncio.ensure_future(anext(each)) for each in followed]
        await asyncio.wait(woken, timeout=0.01)

        # Both are told without being woken, and what they are told is made once.
        await _alert(2, store)
        while len(told) < 4:
            pens[0].heard.clear()
            await pens[0].heard.wait()
        assert not any(each.done() for each in woken)
        start = made[0]
        assert (made, told) == ([start, start + 1], [("at once", start + n) for n in (0, 0, 1, 1)])

        # One cannot be told at once: it is woken instead, also by a burst that is larger than its queue.
        pens[0].is_lifted = True
        await _alert(5, store)
        rows = [await woken[0], *[await anext(followed[0]) for _ in range(4)]]
        assert [row["_id"] for row in rows] == [start + n for n in range(2, 7)]
        assert [number for _, number in told[4:]] == [start + n for n in range(2, 7)]
        woken[1].cancel()


async def test_the_default_rule_comes_from_the_settings_until_somebody_changes_it(store: Database) -> None:
    now = datetime.now(UTC)
    defaults = Settings.model_fields
    threshold, hours = defaults["token_usage_threshold"].default, defaults["notification_cooldown_hours"].default
    assert (threshold, hours) == (100_000, 24)
    await rules.keep_default(threshold=threshold, cooldown_hours=hours, now=now)
    await rules.keep_default(threshold=5, cooldown_hours=2, now=now)
    (row,) = await rules.every()
    assert (row["threshold"], row["cooldown_hours"], row["revision"], row["channels"]) == (5, 2, 2, ["EMAIL"])

    await rules.update(row["_id"], {"name": "Ours"})
    await rules.keep_default(threshold=9, cooldown_hours=9, now=now)

    assert [each["threshold"] for each in await rules.every()] == [5]
