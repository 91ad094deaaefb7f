"""Ratings: what the stars mean, rate, take back."""

from auth.permissions import anyone, signed_in
from graph.agents import Agent
from graph.context import Info
from graph.language import nodes
from graph.language.describe import object_type
from graph.language.guards import mutation, query
from graph.ratings import (
    RateAgentInput,
    RateAgentPayload,
    Rating,
    RemoveRatingInput,
    RemoveRatingPayload,
    StarMeaning,
)
from models import ratings


@object_type
class RatingQueries:
    """What can be asked about ratings."""

    @query(allow=anyone)
    def rating_framework(self) -> list[StarMeaning]:
        """Say what one to five stars mean; five entries, one star first."""
        return [StarMeaning(stars=each.stars, title=each.title, meaning=each.meaning) for each in ratings.FRAMEWORK]


@object_type
class RatingMutations:
    """How agents are rated."""

    @mutation(allow=signed_in)
    async def rate_agent(self, info: Info, input: RateAgentInput) -> RateAgentPayload | None:
        """Rate an agent with 1 to 5 stars. A later rating replaces your first."""
        rating, agent = await ratings.rate(
            input.agent.ref("agent"),
            by=info.context.viewer.require_user(),
            stars=input.stars,
            comment=input.comment,
            now=info.context.now,
        )
        return RateAgentPayload(rating=Rating.of(rating), agent=Agent.of(agent))

    @mutation(allow=signed_in)
    async def remove_rating(self, info: Info, input: RemoveRatingInput) -> RemoveRatingPayload | None:
        """Take back your rating of an agent."""
        key, agent = await ratings.remove(input.agent.ref("agent"), by=info.context.viewer.require_user())
        return RemoveRatingPayload(removed_id=nodes.encode("Rating", key), agent=Agent.of(agent))
