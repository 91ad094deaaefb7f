"""Anything with an id, found by it."""

from typing import Annotated

import strawberry
from strawberry import ID

from auth.permissions import anyone
from graph.agents import Agent
from graph.alerts import Alert, AlertDelivery, AlertRule
from graph.budgets import Reservation
from graph.context import Info
from graph.keys import ApiKey
from graph.language import nodes
from graph.language.describe import object_type
from graph.language.guards import query
from graph.language.nodes import Node
from graph.prices import Price
from graph.ratings import Rating
from graph.runs.recorded import AgentVersion, Run
from graph.threads import Message, Thread
from graph.users import User
from models.errors import BadInput

_KINDS = {
    kind.__name__: kind
    for kind in (
        Agent,
        Alert,
        AlertDelivery,
        AlertRule,
        AgentVersion,
        ApiKey,
        Message,
        Price,
        Rating,
        Reservation,
        Run,
        Thread,
        User,
    )
}


@object_type
class NodeQueries:
    """What can be found by id."""

    @query(allow=anyone)
    async def node(
        self, info: Info, id: Annotated[ID, strawberry.argument(description="A global id, of whatever type.")]
    ) -> Node | None:
        """Find anything by its id, where you may read its type; null when there is none."""
        name, key = nodes.split(id)
        kind = _KINDS.get(name)
        if kind is None:
            raise BadInput.at("id", "This is not an id of this service.")
        kind.readable_by.check(info.context.viewer)
        return await kind.find_node(info.context, key)
