"""The promise of the whole, kept to a customer's own program: gql over HTTP and WebSocket, two server processes."""

import asyncio
import random
from collections import Counter, deque
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Sequence
from contextlib import AsyncExitStack, aclosing, asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from typing import Any

import gql
import pytest
from gql.client import AsyncClientSession
from gql.transport.aiohttp import AIOHTTPTransport
from gql.transport.websockets import WebsocketsTransport
from graphql import GraphQLSchema

from models.alerts.raised import Alert
from models.errors import TooSlow
from models.store import database, sequences
from models.store.database import Database, Key, Session
from models.store.live import Live
from tests.client import PATIENCE_SECONDS, PROTOCOL
from tests.factories import PASSWORD, Person
from tests.processes import Server

REGISTER = "mutation ($input: RegisterInput!) { register(input: $input) { session { user { email } } } }"
LOGIN = "mutation ($input: LoginInput!) { login(input: $input) { session { accessToken } } }"
CREATE_AGENT = "mutation ($input: CreateAgentInput!) { createAgent(input: $input) { agent { id name } } }"
CREATE_RULE = "mutation ($input: CreateAlertRuleInput!) { createAlertRule(input: $input) { alertRule { id } } }"
COLLECT = """
mutation ($input: CollectUsageInput!) {
  collectUsage(input: $input) { accepted duplicates rejected items { outcome } }
}
"""
FIGURES = """
fragment Figures on UsageTotals {
  messages conversations users requests promptTokens completionTokens totalTokens cachedTokens reasoningTokens
  cost unpricedEvents averageLatencyMs firstUsedAt lastUsedAt
}
"""
USAGE = (
    FIGURES
    + """
query ($by: AgentBy!, $from: Date, $to: Date) {
  agent(by: $by) {
    usage { ...Figures }
    usageTimeline(from: $from, to: $to) { ...Day }
  }
  usage(agent: $by, from: $from, to: $to) {
    totals { ...Figures }
    timeline { ...Day }
    byAgent { agent { name } totals { totalTokens } }
    byModel { model totals { requests messages promptTokens completionTokens totalTokens cost } }
  }
}
fragment Day on UsageDay { day messages requests promptTokens completionTokens totalTokens cost }
"""
)
ALERTS = "query { alerts(first: 100) { nodes { cursor value threshold percent agent { name } } } }"
WATCH = "subscription ($after: String) { thresholdAlerts(after: $after) { cursor value agent { name } } }"

FIRST_DAY, DAYS = date(2025, 3, 25), 12
EVENTS, BATCHES, SENDERS = 1000, 10, 8
AGENT = "Support bot"
# US dollars per million tokens of prompt, cached prompt and completion, in the list that every server starts with.
LISTED = {
    "gpt-5": (Decimal("1.25"), Decimal("0.125"), Decimal(10)),
    "claude-opus-5": (Decimal(5), Decimal("0.5"), Decimal(25)),
}


@dataclass(frozen=True, slots=True)
class Call:
    """What the customer's program knows of one call of a model."""

    id: str
    at: datetime
    model: str
    user: str
    conversation: str
    prompt: int
    completion: int
    cached: int
    reasoning: int
    messages: int
    cost: Decimal | None
    latency_ms: int | None

    @property
    def tokens(self) -> int:
        return self.prompt + self.completion

    @property
    def known_cost(self) -> Decimal | None:
        """What it costs: as reported, else as listed; the rest of the models has no price."""
        if self.cost is not None or self.model not in LISTED:
            return self.cost
        prompt, cached, completion = LISTED[self.model]
        cost = (self.prompt - self.cached) * prompt + self.cached * cached + self.completion * completion
        return cost.scaleb(-6)

    def event(self) -> dict[str, Any]:
        """Write it as `collectUsage` takes it."""
        return {
            "id": self.id,
            "agent": {"name": AGENT},
            "at": self.at.isoformat(),
            "model": self.model,
            "user": self.user,
            "conversation": self.conversation,
            "promptTokens": self.prompt,
            "completionTokens": self.completion,
            "cachedTokens": self.cached,
            "reasoningTokens": self.reasoning,
            "messages": self.messages,
            "cost": None if self.cost is None else f"{self.cost:f}",
            "latencyMs": self.latency_ms,
        }


def a_thousand_calls(chance: random.Random) -> list[Call]:
    """Make up what an agent did in twelve days, over the end of a month."""
    start = datetime(FIRST_DAY.year, FIRST_DAY.month, FIRST_DAY.day, tzinfo=UTC)
    return [
        Call(
            id=f"call-{number}",
            at=start + timedelta(milliseconds=chance.randrange(DAYS * 86_400_000)),
            model=chance.choice(["gpt-5", "claude-opus-5", "mistral-large", "llama-4"]),
            user=f"user-{chance.randrange(150)}",
            conversation=f"conversation-{chance.randrange(400)}",
            prompt=(prompt := chance.randrange(1, 4000)),
            completion=(completion := chance.randrange(1, 1000)),
            cached=chance.randrange(prompt + 1),
            reasoning=chance.randrange(completion + 1),
            messages=chance.randrange(1, 5),
            cost=Decimal(chance.randrange(10**9)).scaleb(-9) if chance.random() < 0.9 else None,
            latency_ms=chance.randrange(30_000) if chance.random() < 0.8 else None,
        )
        for number in range(EVENTS)
    ]


def figures(calls: Sequence[Call]) -> dict[str, Any]:
    """Sum up calls as `UsageTotals` shows them."""
    timed = [call.latency_ms for call in calls if call.latency_ms is not None]
    return {
        "messages": sum(call.messages for call in calls),
        "conversations": len({call.conversation for call in calls}),
        "users": len({call.user for call in calls}),
        "requests": len(calls),
        "promptTokens": sum(call.prompt for call in calls),
        "completionTokens": sum(call.completion for call in calls),
        "totalTokens": sum(call.tokens for call in calls),
        "cachedTokens": sum(call.cached for call in calls),
        "reasoningTokens": sum(call.reasoning for call in calls),
        "cost": sum((call.known_cost or Decimal(0) for call in calls), Decimal(0)),
        "unpricedEvents": sum(call.known_cost is None for call in calls),
        "averageLatencyMs": pytest.approx(sum(timed) / len(timed)),
        "firstUsedAt": min(call.at for call in calls),
        "lastUsedAt": max(call.at for call in calls),
    }


def line(calls: Sequence[Call]) -> dict[str, Any]:
    """Sum up calls as a day or a model shows them."""
    names = ("messages", "requests", "promptTokens", "completionTokens", "totalTokens", "cost")
    return {
        name: value for name, value in {**empty_line(), **(figures(calls) if calls else {})}.items() if name in names
    }


def empty_line() -> dict[str, Any]:
    """Write a day without use."""
    return {
        "messages": 0, "requests": 0, "promptTokens": 0, "completionTokens": 0, "totalTokens": 0, "cost": Decimal(0),
    }  # fmt: skip


def read(shown: dict[str, Any]) -> dict[str, Any]:
    """Read figures as they came."""
    readers: dict[str, Callable[[str], Any]] = {
        "cost": Decimal,
        "firstUsedAt": datetime.fromisoformat,
        "lastUsedAt": datetime.fromisoformat,
        "day": date.fromisoformat,
    }
    return {name: readers[name](value) if name in readers else value for name, value in shown.items()}


@asynccontextmanager
async def program(
    server: Server, token: str | None = None, *, schema: GraphQLSchema | None = None
) -> AsyncIterator[AsyncClientSession]:
    """Speak to a server over HTTP, every document checked against the schema, which it is asked for without one."""
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    transport = AIOHTTPTransport(server.graphql, headers=headers, timeout=int(PATIENCE_SECONDS))
    client = gql.Client(
        transport=transport, schema=schema, fetch_schema_from_transport=schema is None, execute_timeout=None
    )
    async with client as session:
        yield session


async def ask(session: AsyncClientSession, document: str, **variables: object) -> dict[str, Any]:
    """Run a query or a mutation."""
    request = gql.gql(document)
    request.variable_values = variables
    answer: dict[str, Any] = await session.execute(request)
    return answer


@asynccontextmanager
async def watching(server: Server, token: str, *, after: str) -> AsyncIterator[AsyncGenerator[dict[str, Any], None]]:
    """Watch alerts over a WebSocket of one's own."""
    transport = WebsocketsTransport(
        server.graphql.replace("http", "ws", 1),
        subprotocols=[PROTOCOL],
        init_payload={"authorization": f"Bearer {token}"},
    )
    request = gql.gql(WATCH)
    request.variable_values = {"after": after}

    async def alerts(session: AsyncClientSession) -> AsyncGenerator[dict[str, Any], None]:
        async with aclosing(session.subscribe(request)) as events:
            async for event in events:
                yield event["thresholdAlerts"]

    async with gql.Client(transport=transport) as session, aclosing(alerts(session)) as found:
        yield found


@pytest.fixture
async def another_server(server: Server, mongodb_uri: str, store: Database) -> AsyncIterator[Server]:
    """Run a second server on the same database; the default rule stays silent, so that the test's rules speak alone."""
    settings = {**server.settings, "TOKEN_USAGE_THRESHOLD": str(2**53 - 1)}
    async with Server(mongodb_uri, **settings) as running:
        yield running


async def test_a_thousand_events_sent_twice_by_eight_senders_count_once_and_alert_every_subscriber_once(
    server: Server, another_server: Server, admin: Person
) -> None:
    chance = random.Random(20)
    calls = a_thousand_calls(chance)
    expected = figures(calls)
    servers = [server, another_server]
    by = {"name": AGENT}

    async with asyncio.timeout(4 * PATIENCE_SECONDS), AsyncExitStack() as stack:
        stranger = await stack.enter_async_context(program(server))
        await ask(stranger, REGISTER, input={"email": "ops@example.com", "name": "Ops", "password": PASSWORD})
        signed_in = await ask(stranger, LOGIN, input={"email": "ops@example.com", "password": PASSWORD})
        token = signed_in["login"]["session"]["accessToken"]
        schema = stranger.client.schema
        senders = [
            await stack.enter_async_context(program(servers[n % 2], token, schema=schema)) for n in range(SENDERS)
        ]
        me = senders[0]
        keeper = await stack.enter_async_context(program(another_server, admin.access_token, schema=schema))

        async def beacon(name: str) -> None:
            """Raise one alert about an agent that is there for nothing else."""
            await ask(me, CREATE_AGENT, input={"name": name, "project": "beacons", "discipline": "BACK_OFFICE"})
            sent = [{"id": name, "agent": {"name": name}, "messages": 2}]
            await ask(me, COLLECT, input={"source": "beacons", "events": sent})

        # Given an agent, a rule that speaks once about it, and subscribers on two servers, of whom two then go away.
        created = await ask(me, CREATE_AGENT, input={"name": AGENT, "discipline": "BACK_OFFICE"})
        agent = created["createAgent"]["agent"]
        threshold = expected["totalTokens"] * 6 // 10
        for rule in (
            {"name": "Much", "metric": "TOTAL_TOKENS", "threshold": str(threshold), "agent": {"id": agent["id"]}},
            {"name": "Beacon", "metric": "MESSAGES", "threshold": "1", "project": "beacons"},
        ):
            await ask(keeper, CREATE_RULE, input={"window": "LIFETIME", **rule})
        await beacon("Beacon 0")
        start = (await ask(me, ALERTS))["alerts"]["nodes"][0]["cursor"]
        await beacon("Beacon 1")
        watchers = [
            await stack.enter_async_context(watching(each, token, after=start)) for each in servers for _ in range(3)
        ]
        heard = [[alert] for alert in await asyncio.gather(*map(anext, watchers))]
        left = []
        for each in servers:
            async with watching(each, token, after=start) as leaving:
                left.append(await anext(leaving))

        # When eight senders send each of ten batches twice, to both servers.
        sources = [calls[n::BATCHES] for n in range(BATCHES)]
        batches = deque(chance.sample(sources * 2, k=2 * BATCHES))
        answers: list[dict[str, Any]] = []

        async def send(sender: AsyncClientSession) -> None:
            while batches:
                sent = {"source": "acceptance", "events": [call.event() for call in batches.popleft()]}
                answers.append((await ask(sender, COLLECT, input=sent))["collectUsage"])

        await asyncio.gather(*map(send, senders))
        for number in (2, 3, 4):
            await beacon(f"Beacon {number}")

        # Then a thousand were accepted and a thousand were not.
        assert len(answers) == 2 * BATCHES
        assert sum(answer["accepted"] for answer in answers) == EVENTS
        assert sum(answer["duplicates"] for answer in answers) == EVENTS
        assert sum(answer["rejected"] for answer in answers) == 0
        assert {item["outcome"] for answer in answers for item in answer["items"]} == {"DUPLICATE"}

        # Then every figure is exact, on both servers.
        last_day = FIRST_DAY + timedelta(days=DAYS - 1)
        days = [FIRST_DAY + timedelta(days=n) for n in range(DAYS)]
        by_day = [{"day": day, **line([call for call in calls if call.at.date() == day])} for day in days]
        tokens = Counter[str]()
        for call in calls:
            tokens[call.model] += call.tokens
        for sender in senders[:2]:
            shown = await ask(sender, USAGE, by=by, **{"from": str(FIRST_DAY), "to": str(last_day)})
            usage = shown["usage"]
            assert read(shown["agent"]["usage"]) == expected
            assert [read(day) for day in shown["agent"]["usageTimeline"]] == by_day
            assert read(usage["totals"]) == expected
            assert [read(day) for day in usage["timeline"]] == by_day
            assert usage["byAgent"] == [{"agent": by, "totals": {"totalTokens": expected["totalTokens"]}}]
            assert [each["model"] for each in usage["byModel"]] == [model for model, _ in tokens.most_common()]
            for each in usage["byModel"]:
                assert read(each["totals"]) == line([call for call in calls if call.model == each["model"]])

        # Then there is one alert about the agent, and every subscriber gets it, and each other one, once and in order.
        stored = list(reversed((await ask(me, ALERTS))["alerts"]["nodes"]))
        names = [alert["agent"]["name"] for alert in stored]
        assert names == ["Beacon 0", "Beacon 1", AGENT, "Beacon 2", "Beacon 3", "Beacon 4"]
        alert = stored[2]
        assert (alert["threshold"], alert["percent"]) == (str(threshold), 100)
        assert threshold < Decimal(alert["value"]) <= expected["totalTokens"]
        for watcher, got in zip(watchers, heard, strict=True):
            while got[-1]["agent"]["name"] != "Beacon 4":
                got.append(await anext(watcher))
        raised = [{name: each[name] for name in ("cursor", "value", "agent")} for each in stored]
        assert heard == [raised[1:]] * len(watchers)

        # Then whoever was away gets exactly what was missed, from either server, and then goes on live.
        assert left == [raised[1]] * 2
        back = [
            await stack.enter_async_context(watching(each, token, after=alert["cursor"]))
            for each in servers
            for alert in left
        ]
        missed = [[await anext(watcher) for _ in raised[2:]] for watcher in back]
        assert missed == [raised[2:]] * len(back)
        await beacon("Beacon 5")
        live = await asyncio.gather(*map(anext, [*watchers, *back]))
        assert [each["agent"]["name"] for each in live] == ["Beacon 5"] * len(live)


async def test_a_slow_reader_is_told_and_let_go_and_misses_nothing_by_coming_back(store: Database) -> None:
    bound = 5

    async def store_alert() -> int:
        async def body(session: Session) -> int:
            (number,) = await sequences.take("alerts", 1, session=session)
            await database.collection(Alert).insert_one({"_id": number, "agent": Key()}, session=session)
            return number

        return await database.transaction(Alert, body)

    async with asyncio.timeout(PATIENCE_SECONDS), Live(store, [Alert], bound=bound) as live:
        # Given one who reads, and one who has read the first alert and then reads no more.
        reader, sluggard = live.follow(Alert, after=None), live.follow(Alert, after=None)
        firsts = asyncio.gather(anext(reader), anext(sluggard))
        number = await store_alert()
        assert [row["_id"] for row in await firsts] == [number, number]

        # When two more come than may pile up; whoever reads has seen each, so it has come to the other too.
        missed = []
        for _ in range(bound + 2):
            missed.append(await store_alert())
            assert (await anext(reader))["_id"] == missed[-1]

        # Then the slow one is told, is let go, and comes back for all of it.
        with pytest.raises(TooSlow) as told:
            await anext(sluggard)
        assert told.value.code == "RATE_LIMITED"
        with pytest.raises(StopAsyncIteration):
            await anext(sluggard)
        again = live.follow(Alert, after=number)
        assert [(await anext(again))["_id"] for _ in missed] == missed
