"""What is asked of the service, and how an answer is told from a wrong one."""

import itertools
import json
from collections.abc import Iterator
from typing import Final

LISTED: Final = 50
RATINGS_EACH: Final = 5
EVENTS_PER_BATCH: Final = 100
REPORTED_AGENTS: Final = 20
MODEL: Final = "claude-sonnet-4-5"

_SCALARS: Final = (
    "id name description project discipline status auditStatus userbase department contactPerson createdAt updatedAt"
)
_DAY: Final = "day messages totalTokens cost"

LIST: Final = f"{{ agents(first: {LISTED}) {{ nodes {{ {_SCALARS} tags }} }} }}"
NESTED: Final = f"""{{ agents(first: {LISTED}) {{ nodes {{ {_SCALARS} tags
  usageTimeline(days: 30) {{ {_DAY} }}
  ratings(first: {RATINGS_EACH}) {{ nodes {{ stars comment createdAt }} }} }} }} }}"""
SINGLE: Final = f"""{{ agent(by: {{ name: "Agent 000" }}) {{ {_SCALARS} tags
  usageTimeline(days: 90) {{ {_DAY} }} }} }}"""
FLEET: Final = "{ usage(days: 30) { timeline { day totalTokens } } }"
COLLECT: Final = """mutation ($input: CollectUsageInput!) {
  collectUsage(input: $input) { accepted duplicates rejected } }"""
ALERTS: Final = (
    "subscription { thresholdAlerts { id cursor metric threshold percent value raisedAt agent { id name } } }"
)


def agent_name(number: int) -> str:
    """Name a seeded agent; in the order of their numbers they are the first of the list."""
    return f"Agent {number:03d}"


def body(document: str, variables: object = None) -> bytes:
    """Write a request."""
    return json.dumps({"query": document, "variables": variables} if variables else {"query": document}).encode()


def batches(source: str) -> Iterator[bytes]:
    """Write collecting requests without end, each of 100 events that nobody has reported yet."""
    for batch in itertools.count():
        events = [
            {
                "id": f"{batch}-{number}",
                "agent": {"name": agent_name(number % REPORTED_AGENTS)},
                "model": MODEL,
                "promptTokens": 900 + number,
                "completionTokens": 200 + number,
                "cachedTokens": 300,
                "cost": "0.0042",
                "latencyMs": 1200 + number,
            }
            for number in range(EVENTS_PER_BATCH)
        ]
        yield body(COLLECT, {"input": {"source": source, "events": events}})


def one_event(agent: str, tokens: int) -> bytes:
    """Write a request that reports one event."""
    event = {"id": agent, "agent": {"name": agent}, "promptTokens": tokens}
    return body(COLLECT, {"input": {"source": "fan-out", "events": [event]}})


def all_accepted(answer: bytes) -> bool:
    """Whether a whole batch was counted."""
    counts = json.loads(answer)
    wanted = {"accepted": EVENTS_PER_BATCH, "duplicates": 0, "rejected": 0}
    return bool(counts == {"data": {"collectUsage": wanted}})


def is_complete(name: str, answer: bytes) -> bool:
    """Whether a read gave all that was asked for: what is fast because it is missing must not count."""
    said = json.loads(answer)
    if "errors" in said:
        return False
    data = said["data"]
    if name == "fleet":
        timeline = data["usage"]["timeline"]
        return len(timeline) == 30 and any(day["totalTokens"] for day in timeline)
    if name == "single":
        days = data["agent"]["usageTimeline"]
        return len(days) == 90 and all(day["totalTokens"] for day in days[:-1])
    nodes = data["agents"]["nodes"]
    return len(nodes) == LISTED and (
        name == "list"
        or all(len(each["usageTimeline"]) == 30 and len(each["ratings"]["nodes"]) == RATINGS_EACH for each in nodes)
    )
