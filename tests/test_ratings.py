"""Ratings: one each, right at once, no drift."""

import asyncio
from collections import Counter
from typing import Any

import pytest

from models import agents, ratings
from models.store import database
from models.store.database import Database
from tests import factories
from tests.client import Client, GraphQLErrors
from tests.factories import Person
from tests.test_agents import create, refusal

RATE = """
mutation ($agent: AgentBy!, $stars: Int!, $comment: String) {
  rateAgent(input: {agent: $agent, stars: $stars, comment: $comment}) {
    rating { id stars comment user { email } agent { name } }
    agent { rating { average count mine distribution } }
  }
}
"""
REMOVE = """
mutation ($agent: AgentBy!) {
  removeRating(input: {agent: $agent}) { removedId agent { rating { average count mine distribution } } }
}
"""
SUMMARY = """
query ($by: AgentBy!) {
  agent(by: $by) {
    rating { average count mine distribution }
    ratings { totalCount nodes { stars comment user { email } } }
  }
}
"""
LIST = """
query ($first: Int, $after: String) {
  agents {
    nodes {
      ratings(first: $first, after: $after) {
        totalCount pageInfo { hasNextPage hasPreviousPage endCursor } nodes { stars }
      }
    }
  }
}
"""
SCOUT = {"name": "Scout"}


async def summary(client: Client) -> dict[str, object]:
    """Read what people think of the agent."""
    found: dict[str, object] = (await client.query(SUMMARY, by=SCOUT))["agent"]["rating"]
    return found


async def test_a_later_rating_replaces_the_first(user: Person, another_user: Person) -> None:
    await create(user.client, "Scout")
    await user.client.query(RATE, agent=SCOUT, stars=1, comment="Meh")
    await another_user.client.query(RATE, agent=SCOUT, stars=4)

    data = (await user.client.query(RATE, agent=SCOUT, stars=5, comment="Better\nnow"))["rateAgent"]

    assert data["rating"]["stars"] == 5
    assert data["rating"]["comment"] == "Better\nnow"
    assert data["agent"]["rating"] == {"average": 4.5, "count": 2, "mine": 5, "distribution": [0, 0, 0, 1, 1]}
    assert (await summary(another_user.client))["mine"] == 4
    listed = (await user.client.query(SUMMARY, by=SCOUT))["agent"]["ratings"]
    assert listed["totalCount"] == 2
    assert {node["user"]["email"]: node["stars"] for node in listed["nodes"]} == {user.email: 5, another_user.email: 4}


async def test_a_rating_can_be_taken_back(user: Person) -> None:
    await create(user.client, "Scout")
    await user.client.query(RATE, agent=SCOUT, stars=2)

    data = await user.client.query(REMOVE, agent=SCOUT)

    assert data["removeRating"]["agent"]["rating"] == {
        "average": None,
        "count": 0,
        "mine": None,
        "distribution": [0, 0, 0, 0, 0],
    }
    error = await refusal(user.client, REMOVE, agent=SCOUT)
    assert (error.code, error.field) == ("NOT_FOUND", "agent")


@pytest.mark.parametrize("stars", [0, 6, -1])
async def test_stars_are_one_to_five(user: Person, stars: int) -> None:
    await create(user.client, "Scout")

    error = await refusal(user.client, RATE, agent=SCOUT, stars=stars)

    assert (error.code, error.field) == ("BAD_USER_INPUT", "stars")
    assert (await summary(user.client))["count"] == 0


async def test_an_agent_that_is_not_there_cannot_be_rated(user: Person) -> None:
    error = await refusal(user.client, RATE, agent={"name": "Nobody"}, stars=3)

    assert (error.code, error.field) == ("NOT_FOUND", "agent")


async def test_a_key_cannot_rate(user: Person, admin: Person) -> None:
    await create(user.client, "Scout")
    key = await factories.api_key(admin, "COLLECT", "READ", "MANAGE", "OPERATE")

    error = await refusal(key, RATE, agent=SCOUT, stars=3)

    assert error.code == "FORBIDDEN"
    assert (await summary(key)) == {"average": None, "count": 0, "mine": None, "distribution": [0, 0, 0, 0, 0]}


async def test_fifty_raters_at_once_lose_nothing_and_sums_do_not_drift(
    client: Client, user: Person, store: Database
) -> None:
    await create(user.client, "Scout")
    people = await asyncio.gather(*(factories.sign_up(client, email=f"rater{n}@example.com") for n in range(50)))

    # Each rates three times over, all at once; some take theirs back at the end.
    for step in (1, 7, 3):
        await asyncio.gather(
            *(person.client.query(RATE, agent=SCOUT, stars=n * step % 5 + 1) for n, person in enumerate(people))
        )
    await asyncio.gather(*(person.client.query(REMOVE, agent=SCOUT) for person in people[:10]))

    given = [n * 3 % 5 + 1 for n in range(10, 50)]
    assert await summary(user.client) == {
        "average": sum(given) / len(given),
        "count": 40,
        "mine": None,
        "distribution": [Counter(given)[stars] for stars in range(1, 6)],
    }
    row = await agents.require("Scout")
    stored = await database.collection(ratings.Rating).find({}).to_list(None)
    assert row["rating"]["sum"] == sum(each["stars"] for each in stored)
    assert row["rating"]["count"] == len(stored)


async def test_one_person_rating_twice_at_once_counts_once(user: Person) -> None:
    await create(user.client, "Scout")

    await asyncio.gather(*(user.client.query(RATE, agent=SCOUT, stars=n % 5 + 1) for n in range(20)))

    found = await summary(user.client)
    assert found["count"] == 1
    assert found["average"] == found["mine"]


async def test_ratings_are_paged_newest_first(client: Client, user: Person) -> None:
    await create(user.client, "Scout")
    await create(user.client, "Other")
    for number in range(5):
        person = await factories.sign_up(client, email=f"rater{number}@example.com")
        await person.client.query(RATE, agent=SCOUT, stars=number + 1)

    async def page(**variables: Any) -> list[dict[str, Any]]:
        found = await user.client.query(LIST, **variables)
        return [each["ratings"] for each in found["agents"]["nodes"]]

    other, first = await page(first=3)
    _, second = await page(first=3, after=first["pageInfo"]["endCursor"])

    assert [each["stars"] for each in (*first["nodes"], *second["nodes"])] == [5, 4, 3, 2, 1]
    assert [each["pageInfo"]["hasNextPage"] for each in (other, first, second)] == [False, True, False]
    assert [each["pageInfo"]["hasPreviousPage"] for each in (other, first, second)] == [False, False, True]
    assert [each["totalCount"] for each in (other, first)] == [0, 5]


async def test_anyone_may_read_what_the_stars_mean(client: Client) -> None:
    data = await client.query("{ ratingFramework { stars title meaning } }")

    assert [each["stars"] for each in data["ratingFramework"]] == [1, 2, 3, 4, 5]
    with pytest.raises(GraphQLErrors) as caught:
        await client.query(RATE, agent=SCOUT, stars=3)
    assert caught.value.code == "UNAUTHENTICATED"


async def test_each_of_several_mutations_shows_what_is_so_after_it(user: Person) -> None:
    await create(user.client, "Scout")
    shown = "agent { rating { mine count } ratings { totalCount nodes { stars } } }"
    by = 'agent: {name: "Scout"}'
    document = f"""mutation {{ x: rateAgent(input: {{{by}, stars: 2}}) {{ {shown} }}
      y: rateAgent(input: {{{by}, stars: 5}}) {{ {shown} }} z: removeRating(input: {{{by}}}) {{ {shown} }} }}"""

    found = await user.client.query(document)

    told = {
        name: (each["agent"]["rating"]["mine"], [node["stars"] for node in each["agent"]["ratings"]["nodes"]])
        for name, each in found.items()
    }
    assert told == {"x": (2, [2]), "y": (5, [5]), "z": (None, [])}
