"""What can be asked: the root fields of each domain, merged into the three roots."""

from strawberry.tools import merge_types

from resolvers.agents import AgentMutations, AgentQueries
from resolvers.alerts import AlertMutations, AlertQueries, AlertSubscriptions
from resolvers.budgets import BudgetMutations, BudgetQueries
from resolvers.keys import KeyMutations, KeyQueries
from resolvers.nodes import NodeQueries
from resolvers.organism import OrganismMutations, OrganismQueries, OrganismSubscriptions
from resolvers.prices import PriceMutations, PriceQueries
from resolvers.ratings import RatingMutations, RatingQueries
from resolvers.runs import RunMutations, RunQueries, RunSubscriptions
from resolvers.sessions import SessionMutations
from resolvers.sheets import SheetMutations
from resolvers.statistics import StatisticsQueries
from resolvers.threads import ThreadMutations, ThreadQueries, ThreadSubscriptions
from resolvers.usage import UsageMutations, UsageQueries
from resolvers.users import UserMutations, UserQueries


def _root(name: str, words: str, parts: tuple[type, ...]) -> type:
    merged = merge_types(name, parts)
    merged.__strawberry_definition__.description = words  # type: ignore[attr-defined]  # merge_types takes no words
    return merged


Query = _root(
    "Query",
    "What can be asked.",
    (
        NodeQueries,
        UserQueries,
        KeyQueries,
        AgentQueries,
        UsageQueries,
        PriceQueries,
        RatingQueries,
        AlertQueries,
        RunQueries,
        ThreadQueries,
        BudgetQueries,
        OrganismQueries,
        StatisticsQueries,
    ),
)
Mutation = _root(
    "Mutation",
    "What can be changed. Each field is nullable: one that fails does not hide the answer of another.",
    (
        SessionMutations,
        UserMutations,
        KeyMutations,
        AgentMutations,
        SheetMutations,
        RatingMutations,
        UsageMutations,
        PriceMutations,
        RunMutations,
        BudgetMutations,
        AlertMutations,
        OrganismMutations,
        ThreadMutations,
    ),
)
Subscription = _root(
    "Subscription",
    "What can be watched, over WebSocket or server-sent events.",
    (AlertSubscriptions, RunSubscriptions, ThreadSubscriptions, OrganismSubscriptions),
)
ROOTS = Query, Mutation, Subscription
