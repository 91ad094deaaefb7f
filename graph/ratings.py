"""Ratings as clients see and give them."""

from datetime import datetime
from typing import TYPE_CHECKING, Annotated, ClassVar

import strawberry
from strawberry import ID, Private

import graph.agents
import graph.users
from auth.permissions import Permission, readers
from graph.context import Context, Info
from graph.language.describe import field, input_type, object_type, personal
from graph.language.nodes import Node, key_of
from graph.language.rows import reader
from models import agents, ratings, users
from models.store.database import Key, Row

if TYPE_CHECKING:
    from graph.agents import Agent, AgentBy
    from graph.users import User


@object_type
class RatingSummary:
    """What people think of an agent; right at once after each rating."""

    agent: Private[Key]
    average: float | None
    """Mean of the stars, 1 to 5; null without ratings."""
    count: int
    """How many people have rated."""
    distribution: list[int]
    """Five counts: how many gave 1 star, 2 stars, ... 5 stars."""

    @personal
    async def mine(self, info: Info) -> int | None:
        """Give the stars that you gave yourself; null when you have not, or when an API key asks."""
        viewer = info.context.viewer
        return await info.context.find(ratings.given_by, self.agent, user=viewer.user) if viewer.user else None

    async def total(self) -> int:
        """Give the count to a list of the ratings, which then need not count them."""
        return self.count

    @classmethod
    def of(cls, agent: Row) -> "RatingSummary":
        """Shape what an agent's row keeps of its ratings."""
        return _summary(agent)


_summary = reader(
    RatingSummary,
    agent=lambda row: row["_id"],
    average=lambda row: row["rating"]["average"],
    count=lambda row: row["rating"]["count"],
    distribution=lambda row: [row["rating"]["distribution"][str(n)] for n in range(1, 6)],
)


@object_type
class Rating(Node):
    """One person's rating of one agent."""

    readable_by: ClassVar[Permission] = readers

    agent_key: Private[Key]
    user_key: Private[Key]
    stars: int
    """1 to 5; `ratingFramework` says what they mean."""
    comment: str | None
    """What the person wrote beside it; null without."""
    created_at: datetime
    """When this person first rated the agent."""
    updated_at: datetime
    """When the rating was last replaced."""

    @field
    async def agent(self, info: Info) -> Annotated["Agent", strawberry.lazy("graph.agents")]:
        """Give the agent that is rated."""
        return graph.agents.Agent.of(await info.context.load(agents.by_keys, self.agent_key))

    @field
    async def user(self, info: Info) -> Annotated["User", strawberry.lazy("graph.users")] | None:
        """Who rated; null when the account is gone."""
        row = await info.context.find(users.by_keys, self.user_key)
        return graph.users.User.of(row) if row else None

    @classmethod
    def of(cls, row: Row) -> "Rating":
        """Shape a stored rating."""
        return _rating(row)

    @classmethod
    async def find_node(cls, context: Context, key: str) -> "Rating | None":  # noqa: ARG003  # some types ask the context
        """Find one by its key."""
        row = await ratings.find(key_of(key))
        return cls.of(row) if row else None


_rating = reader(Rating, agent_key=lambda row: row["agent"], user_key=lambda row: row["user"])


@object_type
class StarMeaning:
    """What a number of stars stands for."""

    stars: int
    """1 to 5."""
    title: str
    """In a word or two."""
    meaning: str
    """In a sentence."""


# ---------------------------------------------------------------- rateAgent


@input_type
class RateAgentInput:
    """A rating of an agent."""

    agent: Annotated["AgentBy", strawberry.lazy("graph.agents")]
    """Which agent."""
    stars: int
    """1 to 5."""
    comment: str | None = None
    """A remark beside it, at most 2,000 characters."""


@object_type
class RateAgentPayload:
    """The rating as it stands, and the agent with it."""

    rating: Rating
    """Your rating."""
    agent: Annotated["Agent", strawberry.lazy("graph.agents")]
    """The agent, its average and count brought up to date."""


# ---------------------------------------------------------------- removeRating


@input_type
class RemoveRatingInput:
    """Which rating to take back."""

    agent: Annotated["AgentBy", strawberry.lazy("graph.agents")]
    """The agent that you rated."""


@object_type
class RemoveRatingPayload:
    """What is left after the rating is gone."""

    removed_id: ID
    """The id that the rating had."""
    agent: Annotated["Agent", strawberry.lazy("graph.agents")]
    """The agent, its average and count brought up to date."""
