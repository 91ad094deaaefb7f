"""Alert rules and alerts as clients see them."""

from datetime import datetime
from decimal import Decimal
from typing import TYPE_CHECKING, Annotated, Any, ClassVar

import strawberry
from strawberry import ID, Maybe, Private

import graph.agents
import graph.threads
from auth.permissions import Permission, readers, rule_keepers
from graph.context import Context, Info
from graph.language import pages
from graph.language.describe import changes, field, input_type, object_type
from graph.language.enums import expose
from graph.language.nodes import Node, key_of
from graph.language.rows import reader
from graph.users import User
from models import agents, users
from models.alerts import raised, rules
from models.errors import BadInput
from models.store import outbox
from models.store.database import Key, Row
from models.threads import conversations

if TYPE_CHECKING:
    from graph.agents import Agent, AgentBy
    from graph.threads import Thread

Discipline = expose(agents.Discipline)
AlertMetric = expose(rules.AlertMetric)
AlertWindow = expose(rules.AlertWindow)
AlertChannel = expose(rules.AlertChannel)
DeliveryStatus = expose(outbox.DeliveryStatus)
LazyAgent = Annotated["Agent", strawberry.lazy("graph.agents")]
LazyAgentBy = Annotated["AgentBy", strawberry.lazy("graph.agents")]


@object_type
class AlertRule(Node):
    """What to watch, of which agents, and when to speak."""

    readable_by: ClassVar[Permission] = rule_keepers

    agent_key: Private[Key | None]
    name: str
    """What people call it."""
    metric: AlertMetric  # type: ignore[valid-type]  # mypy takes an exposed enum for a variable
    """What it measures."""
    window: AlertWindow  # type: ignore[valid-type]  # mypy takes an exposed enum for a variable
    """Over what time it measures."""
    threshold: Decimal
    """The value to speak at, in tokens, messages or US dollars."""
    percents: list[int]
    """Percents of the threshold at which to speak, at most 10. 100 speaks past the threshold, others when reached."""
    cooldown_hours: float | None
    """Hours until it speaks again while the value stays past; null: once in each window."""
    discipline: Discipline | None  # type: ignore[valid-type]  # mypy takes an exposed enum for a variable
    """Only agents of this discipline; null: of any."""
    project: str | None
    """Only agents of this project; null: of any."""
    channels: list[AlertChannel]  # type: ignore[valid-type]  # mypy takes an exposed enum for a variable
    """How people are told beside the subscription; at most 2."""
    webhook_url: str | None
    """Where the channel WEBHOOK posts; null without it."""
    enabled: bool
    """Whether it watches at all."""

    @field
    async def webhook_secret(self, info: Info) -> str | None:
        """Give the secret that a receiver checks webhooks with, as Standard Webhooks has it; null without WEBHOOK."""
        wanted = rules.AlertChannel.WEBHOOK in self.channels
        return info.context.services.signing.secret(self.key, of="alert rule") if wanted else None

    @field
    async def agent(self, info: Info) -> LazyAgent | None:
        """Give the only agent it watches; null: any."""
        row = await info.context.find(agents.by_keys, self.agent_key)
        return graph.agents.Agent.of(row) if row else None

    @classmethod
    def of(cls, row: Row) -> "AlertRule":
        """Shape a stored rule."""
        return _rule(row)

    @classmethod
    async def find_node(cls, context: Context, key: str) -> "AlertRule | None":  # noqa: ARG003  # some types ask the context
        """Find one by its key."""
        row = (await rules.by_keys([key_of(key)])).get(key_of(key))
        return cls.of(row) if row else None


_rule = reader(
    AlertRule,
    agent_key=lambda row: row["agent"],
    threshold=lambda row: rules.shown(row["metric"], row["threshold"]),
)


@object_type
class Alert(Node):
    """A threshold that an agent has come to."""

    readable_by: ClassVar[Permission] = readers

    agent_key: Private[Key]
    rule_key: Private[Key | None]
    thread_key: Private[Key | None]
    by_key: Private[Key | None]
    cursor: str
    """Its place in the order in which alerts were raised: subscribe with `after` set to it to go on from here."""
    metric: AlertMetric  # type: ignore[valid-type]  # mypy takes an exposed enum for a variable
    """What was measured."""
    window: AlertWindow  # type: ignore[valid-type]  # mypy takes an exposed enum for a variable
    """Over what time."""
    threshold: Decimal
    """The rule's threshold, or the budget's limit, at that moment; in tokens, messages or US dollars."""
    percent: int
    """The percent of the threshold that was reached."""
    value: Decimal
    """What was measured, in the unit of the threshold."""
    window_start: datetime | None
    """When the calendar window began; null for LIFETIME."""
    raised_at: datetime
    """When it was raised, by the database's clock."""
    acknowledged_at: datetime | None
    """When somebody saw to it; null while nobody has."""

    @field
    async def rule(self, info: Info) -> AlertRule | None:
        """Give the rule that spoke; null for a thread's budget, when it is gone, or when you may not read rules."""
        if not rule_keepers.test(info.context.viewer):
            return None
        row = await info.context.find(rules.by_keys, self.rule_key)
        return AlertRule.of(row) if row else None

    @field
    async def agent(self, info: Info) -> LazyAgent:
        """Give the agent it is about."""
        return graph.agents.Agent.of(await info.context.load(agents.by_keys, self.agent_key))

    @field
    async def thread(self, info: Info) -> Annotated["Thread", strawberry.lazy("graph.threads")] | None:
        """Give the thread whose budget it is about; null when a rule spoke, and for who may not read the thread."""
        row = await info.context.find(conversations.by_keys, self.thread_key)
        may = row is not None and graph.threads.may_read(info.context, row["participants"])
        return graph.threads.Thread.of(row) if row and may else None

    @field
    async def acknowledged_by(self, info: Info) -> User | None:
        """Say who saw to it; null while nobody has."""
        row = await info.context.find(users.by_keys, self.by_key)
        return User.of(row) if row else None

    @field
    async def deliveries(self, info: Info) -> list["AlertDelivery"] | None:
        """List its e-mails, one for each admin, and its webhook; kept for 90 days. Null when you may not read rules."""
        if not rule_keepers.test(info.context.viewer):
            return None
        rows = await info.context.find(outbox.by_subject, raised.subject(self.key))
        return [AlertDelivery.of(row) for row in rows or ()]

    @classmethod
    def of(cls, row: Row) -> "Alert":
        """Shape a stored alert."""
        return _alert(row)

    @classmethod
    async def find_node(cls, context: Context, key: str) -> "Alert | None":  # noqa: ARG003  # some types ask the context
        """Find one by its number."""
        row = await raised.find(int(key)) if key.isdecimal() and len(key) <= 18 else None  # noqa: PLR2004  # 64 bits
        return cls.of(row) if row else None


@object_type
class AlertDelivery(Node):
    """One message about an alert, on its way to one receiver."""

    readable_by: ClassVar[Permission] = rule_keepers

    user_key: Private[Key | None]
    channel: AlertChannel  # type: ignore[valid-type]  # mypy takes an exposed enum for a variable
    """How it is sent."""
    status: DeliveryStatus  # type: ignore[valid-type]  # mypy takes an exposed enum for a variable
    """How far it has come."""
    attempts: int
    """How often it has been tried, since it was last asked for."""
    next_attempt_at: datetime | None
    """When it is tried again; null when it is not, or is being tried now."""
    delivered_at: datetime | None
    """When the other side took it; null until then."""
    error: str | None
    """Why the last try failed, or why it was given up; null when all is well."""

    @field
    async def user(self, info: Info) -> User | None:
        """Give the admin that an e-mail is for; null for a webhook."""
        row = await info.context.find(users.by_keys, self.user_key)
        return User.of(row) if row else None

    @classmethod
    def of(cls, row: Row) -> "AlertDelivery":
        """Shape a stored message."""
        return _delivery(row)

    @classmethod
    async def find_node(cls, context: Context, key: str) -> "AlertDelivery | None":  # noqa: ARG003  # some types ask the context
        """Find one by its key."""
        row = await outbox.find(key)
        return cls.of(row) if row else None


_delivery = reader(
    AlertDelivery,
    channel=lambda row: row["kind"],
    user_key=lambda row: row["payload"].get("user"),
    next_attempt_at=lambda row: row["due"] if row["status"] == outbox.DeliveryStatus.PENDING else None,
)


def cursor(number: int) -> str:
    """Write an alert's number as its cursor, the same as in the list of alerts."""
    return pages.encode(_SCOPE, (number, number))


def number(text: str, *, name: str = "after") -> int:
    """Read a cursor back. Raises `BadInput`."""
    try:
        found = pages.decode(_SCOPE, text)[1]
    except ValueError:
        found = None
    if not isinstance(found, int) or isinstance(found, bool):
        raise BadInput.at(name, f"`{name}` is no cursor of an alert. Take it from `Alert.cursor`.")
    return found


LIST = "alerts"
_SCOPE = pages.asked(LIST, raised.NEWEST).scope

_alert = reader(
    Alert,
    cursor=lambda row: cursor(row["_id"]),
    agent_key=lambda row: row["agent"],
    rule_key=lambda row: row["rule"],
    thread_key=lambda row: row.get("thread"),
    by_key=lambda row: row["acknowledged_by"],
    threshold=lambda row: rules.shown(row["metric"], row["threshold"]),
    value=lambda row: rules.shown(row["metric"], row["value"]),
)


# ---------------------------------------------------------------- createAlertRule


@input_type
class CreateAlertRuleInput:
    """A new rule."""

    name: str
    """What people call it, 1 to 200 characters."""
    metric: AlertMetric  # type: ignore[valid-type]  # mypy takes an exposed enum for a variable
    """What to measure."""
    window: AlertWindow  # type: ignore[valid-type]  # mypy takes an exposed enum for a variable
    """Over what time."""
    threshold: Decimal
    """The value to speak at, above 0: whole tokens or messages, or US dollars."""
    percents: list[int] = strawberry.field(default_factory=lambda: [100])
    """Percents of the threshold at which to speak: 1 to 10 of them, each 1 to 1000."""
    cooldown_hours: float | None = None
    """Hours until it speaks again while the value stays past; once in each window, when left out."""
    agent: LazyAgentBy | None = None
    """Only this agent."""
    discipline: Discipline | None = None  # type: ignore[valid-type]  # mypy takes an exposed enum for a variable
    """Only agents of this discipline."""
    project: str | None = None
    """Only agents of this project."""
    channels: list[AlertChannel] = strawberry.field(default_factory=list)  # type: ignore[valid-type]  # as above
    """How to tell people beside the subscription."""
    webhook_url: str | None = None
    """Where the channel WEBHOOK posts."""
    enabled: bool = True
    """Whether it watches at once."""

    async def values(self) -> dict[str, Any]:
        """Give what is written of a rule."""
        given = {name: getattr(self, name) for name in rules.AlertRuleFields.model_fields}
        given["agent"] = await graph.agents.key_of(self.agent, field="agent") if self.agent else None
        return given


@object_type
class CreateAlertRulePayload:
    """The new rule."""

    alert_rule: AlertRule
    """It watches from the next event on."""


# ---------------------------------------------------------------- updateAlertRule


@input_type
class UpdateAlertRuleInput:
    """What to change about a rule: what is left out stays, null clears, a value sets."""

    id: ID
    """Which rule."""
    name: Maybe[str | None]
    """What people call it."""
    metric: Maybe[AlertMetric | None]  # type: ignore[valid-type]  # mypy takes an exposed enum for a variable
    """What to measure; changing it forgets what the rule has said."""
    window: Maybe[AlertWindow | None]  # type: ignore[valid-type]  # mypy takes an exposed enum for a variable
    """Over what time; changing it forgets what the rule has said."""
    threshold: Maybe[Decimal | None]
    """The value to speak at; changing it forgets what the rule has said."""
    percents: Maybe[list[int] | None]
    """Percents of the threshold at which to speak."""
    cooldown_hours: Maybe[float | None]
    """Hours until it speaks again; null: once in each window."""
    agent: Maybe[LazyAgentBy | None]
    """Only this agent; null: any."""
    discipline: Maybe[Discipline | None]  # type: ignore[valid-type]  # as above
    """Only agents of this discipline; null: of any."""
    project: Maybe[str | None]
    """Only agents of this project; null: of any."""
    channels: Maybe[list[AlertChannel] | None]  # type: ignore[valid-type]  # mypy takes an exposed enum for a variable
    """How to tell people beside the subscription."""
    webhook_url: Maybe[str | None]
    """Where the channel WEBHOOK posts."""
    enabled: Maybe[bool | None]
    """Whether it watches."""

    async def values(self) -> dict[str, Any]:
        """Give what changes of a rule."""
        given = changes(self)
        if given.get("agent") is not None:
            given["agent"] = await graph.agents.key_of(given["agent"], field="agent")
        return given


@object_type
class UpdateAlertRulePayload:
    """The rule, changed."""

    alert_rule: AlertRule
    """The rule."""


# ---------------------------------------------------------------- deleteAlertRule


@input_type
class DeleteAlertRuleInput:
    """Which rule to delete."""

    id: ID
    """The rule's id."""


@object_type
class DeleteAlertRulePayload:
    """The rule is gone; its alerts stay."""

    deleted_id: ID
    """The id that it had."""


# ---------------------------------------------------------------- acknowledgeAlert


@input_type
class AcknowledgeAlertInput:
    """Which alert you have seen to."""

    id: ID
    """The alert's id."""


@object_type
class AcknowledgeAlertPayload:
    """The alert, acknowledged."""

    alert: Alert
    """The alert; who acknowledged it first stays."""


# ---------------------------------------------------------------- retryDelivery


@input_type
class RetryDeliveryInput:
    """Which message to send once more."""

    id: ID
    """The id of an `AlertDelivery`."""


@object_type
class RetryDeliveryPayload:
    """The message is on its way again, for a day at the most."""

    delivery: AlertDelivery
    """It keeps its id, by which its receiver can tell a repeat."""
