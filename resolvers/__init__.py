"""What can be asked: the root fields of each domain, merged into the three roots."""

from strawberry.tools import merge_types

from resolvers.agents import AgentMutations, AgentQueries
from resolvers.alerts import AlertMutations, AlertQueries, AlertSubscriptions
from resolvers.keys import KeyMutations, KeyQueries
from resolvers.nodes import NodeQueries
from resolvers.ratings import RatingMutations, RatingQueries
from resolvers.sessions import SessionMutations
from resolvers.usage import UsageMutations, UsageQueries
from resolvers.users import UserMutations, UserQueries

Query = merge_types(
    "Query", (NodeQueries, UserQueries, KeyQueries, AgentQueries, UsageQueries, RatingQueries, AlertQueries)
)
Mutation = merge_types(
    "Mutation",
    (SessionMutations, UserMutations, KeyMutations, AgentMutations, RatingMutations, UsageMutations, AlertMutations),
)
Subscription = merge_types("Subscription", (AlertSubscriptions,))
