"""Alerts: rules, what they have raised, and what they raise now."""

from collections.abc import AsyncGenerator
from functools import partial
from typing import Annotated

import strawberry

from auth.permissions import readers, rule_keepers, signed_in
from graph import agents as agent_types
from graph.agents import AgentBy
from graph.alerts import (
    LIST,
    AcknowledgeAlertInput,
    AcknowledgeAlertPayload,
    Alert,
    AlertDelivery,
    AlertRule,
    CreateAlertRuleInput,
    CreateAlertRulePayload,
    DeleteAlertRuleInput,
    DeleteAlertRulePayload,
    Discipline,
    RetryDeliveryInput,
    RetryDeliveryPayload,
    UpdateAlertRuleInput,
    UpdateAlertRulePayload,
    number,
)
from graph.context import Info
from graph.language import nodes, pages
from graph.language.describe import object_type
from graph.language.guards import mutation, query, subscription
from graph.language.pages import After, Connection, First
from models.alerts import raised, rules
from models.store import outbox


@object_type
class AlertQueries:
    """What can be asked about alerts."""

    @query(allow=readers)
    async def alerts(
        self,
        agent: Annotated[AgentBy | None, strawberry.argument(description="Only those about this agent.")] = None,
        acknowledged: Annotated[
            bool | None, strawberry.argument(description="True: only those seen to; false: only the others.")
        ] = None,
        first: First = None,
        after: After = None,
    ) -> Connection[Alert]:
        """List alerts, newest first."""
        wanted = pages.asked(LIST, raised.NEWEST, first=first, after=after)
        key = await agent_types.key_of(agent, field="agent") if agent else None
        page = await raised.page(agent=key, acknowledged=acknowledged, window=wanted.window)
        return wanted.connection(page, Alert.of, partial(raised.count, agent=key, acknowledged=acknowledged))

    @query(allow=rule_keepers)
    async def alert_rules(self) -> list[AlertRule] | None:
        """List the alert rules, oldest first; at most 1,000."""
        return [AlertRule.of(row) for row in await rules.every()]


@object_type
class AlertMutations:
    """What can be changed about alerts."""

    @mutation(allow=rule_keepers)
    async def create_alert_rule(self, info: Info, input: CreateAlertRuleInput) -> CreateAlertRulePayload | None:
        """Add an alert rule. Agents that are past its threshold already raise an alert with their next event."""
        row = await rules.create(await input.values(), now=info.context.now)
        return CreateAlertRulePayload(alert_rule=AlertRule.of(row))

    @mutation(allow=rule_keepers)
    async def update_alert_rule(self, input: UpdateAlertRuleInput) -> UpdateAlertRulePayload | None:
        """Change an alert rule."""
        row = await rules.update(nodes.decode(input.id, "AlertRule"), await input.values())
        return UpdateAlertRulePayload(alert_rule=AlertRule.of(row))

    @mutation(allow=rule_keepers)
    async def delete_alert_rule(self, input: DeleteAlertRuleInput) -> DeleteAlertRulePayload | None:
        """Delete an alert rule. The default rule, which the settings describe, can be disabled but not deleted."""
        await rules.delete(nodes.decode(input.id, "AlertRule"))
        return DeleteAlertRulePayload(deleted_id=input.id)

    @mutation(allow=signed_in)
    async def acknowledge_alert(self, info: Info, input: AcknowledgeAlertInput) -> AcknowledgeAlertPayload | None:
        """Say that you have seen to an alert."""
        row = await raised.acknowledge(
            nodes.decode_number(input.id, "Alert"), by=info.context.viewer.require_user(), now=info.context.now
        )
        return AcknowledgeAlertPayload(alert=Alert.of(row))

    @mutation(allow=rule_keepers)
    async def retry_delivery(self, input: RetryDeliveryInput) -> RetryDeliveryPayload | None:
        """Send an e-mail or a webhook about an alert once more, also one that was given up."""
        row = await outbox.retry(nodes.decode_text(input.id, "AlertDelivery"))
        return RetryDeliveryPayload(delivery=AlertDelivery.of(row))


@object_type
class AlertSubscriptions:
    """What can be watched."""

    @subscription(allow=readers)
    async def threshold_alerts(
        self,
        info: Info,
        after: Annotated[
            str | None,
            strawberry.argument(description="Begin after the alert with this cursor, the stored ones first."),
        ] = None,
        agents: Annotated[
            list[AgentBy] | None, strawberry.argument(description="Only those about these agents, at most 100.")
        ] = None,
        disciplines: Annotated[
            list[Discipline] | None,  # type: ignore[valid-type]  # mypy takes an exposed enum for a variable
            strawberry.argument(description="Only those about agents that were of these disciplines."),
        ] = None,
    ) -> AsyncGenerator[Alert, None]:
        """Watch alerts as they are raised, in the order in which they were stored; none is left out, none comes twice.

        Keep the last `cursor` and pass it as `after` to go on after a break. Who reads too slowly is told so with
        RATE_LIMITED and let go.
        """
        chosen = await agent_types.keys_of(agents, field="agents") if agents is not None else None
        start = number(after) if after is not None else None
        where = raised.chooser(agents=chosen, disciplines=disciplines)
        teller = info.context.teller(Alert.of)
        async for row in info.context.services.live.follow(raised.Alert, after=start, where=where, teller=teller):
            yield Alert.of(row)
