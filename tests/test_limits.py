"""Guessing is slowed down, per account and per address, whoever does it from how many places; nobody is locked out."""

import asyncio
from datetime import timedelta
from typing import Any

from auth import limits
from models.store import buckets, database
from models.store.buckets import Bucket, Rate
from models.store.database import Database
from models.users import Role
from tests import factories
from tests.client import Client, Reply
from tests.factories import LOGIN, PASSWORD, REGISTER, Person
from tests.processes import Server
from tests.test_users import CHANGE


def at(client: Client, address: str) -> Client:
    """Give a client whose requests come from an address, as a trusted proxy says."""
    return client.with_headers(X_Forwarded_For=address)


async def login(client: Client, email: str, password: str) -> Reply:
    """Try to sign in."""
    return await client.execute(LOGIN, {"input": {"email": email, "password": password}})


async def codes(client: Client, email: str, *, tries: int, several: bool = False) -> list[str]:
    """Give what so many wrong tries are answered with; from as many addresses, for `several`."""
    replies = [
        await login(at(client, f"198.51.100.{number}") if several else client, email, "wrong")
        for number in range(tries)
    ]
    return [reply.codes[0] for reply in replies]


async def test_an_account_is_guessed_at_slowly_from_however_many_addresses(client: Client, user: Person) -> None:
    answers = await codes(client, user.email, tries=60, several=True)

    assert answers == ["UNAUTHENTICATED"] * 10 + ["RATE_LIMITED"] * 50


async def test_an_account_that_is_none_is_slowed_down_alike(client: Client, user: Person) -> None:
    known, unknown = [await codes(client, email, tries=12, several=True) for email in (user.email, "no@example.com")]

    assert known == unknown


async def test_the_owner_gets_in_where_they_were_before_while_others_guess(client: Client, user: Person) -> None:
    await codes(client, user.email, tries=20, several=True)

    assert (await login(client, user.email, PASSWORD)).codes == []
    elsewhere = await login(at(client, "203.0.113.9"), user.email, PASSWORD)
    assert elsewhere.codes == ["RATE_LIMITED"]
    assert elsewhere.status == 429
    assert 0 < int(elsewhere.headers["Retry-After"]) <= 30


async def test_who_guesses_from_one_address_is_slowed_down_there_alone(client: Client, user: Person) -> None:
    guesser = at(client, "2001:db8::1")
    answers = [(await login(guesser, f"p{number}@example.com", "wrong")).codes[0] for number in range(35)]

    assert answers == ["UNAUTHENTICATED"] * 30 + ["RATE_LIMITED"] * 5
    neighbour = at(client, "2001:db8::2")
    assert (await login(neighbour, "another@example.com", "wrong")).codes == ["RATE_LIMITED"]
    assert (await login(at(client, "2001:db8:0:1::1"), user.email, PASSWORD)).codes == []


async def test_signing_in_rightly_takes_no_tries(client: Client, user: Person) -> None:
    somewhere = at(client, "203.0.113.9")
    for _ in range(4):
        await login(somewhere, user.email, "wrong")

    for _ in range(12):
        assert (await login(somewhere, user.email, PASSWORD)).codes == []


async def test_aliases_multiply_no_tries(client: Client, user: Person) -> None:
    tried = f'login(input: {{email: "{user.email}", password: "wrong"}}) {{ session {{ accessToken }} }}'
    document = " ".join(f"a{number}: {tried}" for number in range(30))

    reply = await at(client, "203.0.113.9").execute(f"mutation {{ {document} }}")

    assert sorted(reply.codes) == ["RATE_LIMITED"] * 22 + ["UNAUTHENTICATED"] * 8


async def test_guesses_at_once_and_on_two_processes_are_counted_together(
    client: Client, user: Person, server: Server, mongodb_uri: str
) -> None:
    async with Server(mongodb_uri, **server.settings) as another:
        doors = [at(client, "203.0.113.9"), Client(client.session, another.graphql)]
        replies = await asyncio.gather(*(login(doors[number % 2], "p@example.com", "wrong") for number in range(40)))

    assert sorted(reply.codes[0] for reply in replies) == ["RATE_LIMITED"] * 30 + ["UNAUTHENTICATED"] * 10


async def test_the_current_password_is_guessed_at_as_slowly(user: Person) -> None:
    thief = at(user.client, "203.0.113.9")
    given = {"currentPassword": "wrong", "newPassword": "a better horse"}

    answers = [(await thief.execute(CHANGE, {"input": given})).codes[0] for _ in range(12)]

    assert answers == ["BAD_USER_INPUT"] * 8 + ["RATE_LIMITED"] * 4


async def test_one_address_makes_so_many_accounts(client: Client, store: Database) -> None:
    async def register(number: int) -> list[str]:
        values: dict[str, Any] = {"email": f"p{number}@example.com", "name": "P", "password": PASSWORD}
        return (await client.execute(REGISTER, {"input": values})).codes

    answers = [await register(number) for number in range(102)]

    assert answers == [[]] * 100 + [["RATE_LIMITED"]] * 2
    assert await store.handle["users"].count_documents({"role": Role.USER.value}) == 100


async def test_an_address_that_no_proxy_vouches_for_is_not_believed(
    client: Client, user: Person, server: Server, mongodb_uri: str
) -> None:
    async with Server(mongodb_uri, **server.settings | {"TRUSTED_PROXIES": ""}) as another:
        direct = Client(client.session, another.graphql)
        answers = [
            (await login(at(direct, f"198.51.100.{number}"), f"p{number}@example.com", "wrong")).codes[0]
            for number in range(32)
        ]

    assert answers == ["UNAUTHENTICATED"] * 30 + ["RATE_LIMITED"] * 2


async def test_a_bucket_fills_again_with_time(store: Database) -> None:
    rate = Rate(burst=2, every=timedelta(hours=1))

    taken = [await buckets.take("somebody", rate) for _ in range(3)]
    await buckets.give_back("somebody", rate)
    given_back = await buckets.take("somebody", rate)
    await database.collection(Bucket).update_one(
        {"_id": "somebody"}, [{"$set": {"full_at": {"$subtract": ["$full_at", 3_600_000]}}}]
    )

    assert taken[:2] == [None, None]
    assert taken[2]
    assert timedelta(minutes=59) < taken[2] <= timedelta(hours=1)
    assert given_back is None
    assert await buckets.take("somebody", rate) is None
    assert await buckets.take("somebody", rate)


async def test_takers_at_once_take_no_more_than_there_is(store: Database) -> None:
    rate = Rate(burst=7, every=timedelta(hours=1))

    waits = await asyncio.gather(*(buckets.take("somebody", rate) for _ in range(50)))

    assert waits.count(None) == 7


async def test_a_known_address_is_one_from_which_somebody_signed_in(client: Client, user: Person) -> None:
    home = at(client, "203.0.113.9")
    await factories.sign_in(home, email=user.email)
    await codes(client, user.email, tries=12, several=True)

    assert (await login(home, user.email, PASSWORD)).codes == []


# ---------------------------------------------------------------- requests


async def test_requests_are_counted_per_person_key_and_address_on_all_processes(
    *, client: Client, user: Person, another_user: Person, server: Server, mongodb_uri: str
) -> None:
    few = server.settings | {"REQUESTS_PER_MINUTE": "40", "REQUESTS_PER_MINUTE_SIGNED_OUT": "20"}
    key = await factories.api_key(user, "READ")
    document = "{ ratingFramework { stars } }"
    async with Server(mongodb_uri, **few) as one, Server(mongodb_uri, **few) as other:

        async def asked(who: Client, times: int) -> list[Reply]:
            doors = [Client(who.session, each.graphql, who.token, who.headers) for each in (one, other)]
            return [await doors[number % 2].execute(document) for number in range(times)]

        def refused(replies: list[Reply]) -> int:
            return sum(reply.codes == ["RATE_LIMITED"] for reply in replies)

        async with Client(client.session, one.graphql).socket() as socket:
            await socket.initialise(user.access_token)
            mine = await asked(user.client, 60)
            # However slow the machine is: what comes back meanwhile is one in a second and a half.
            assert 1 <= refused(mine) <= 21
            last = mine[-1]
            assert last.status == 429
            assert 0 < int(last.headers["Retry-After"]) <= 3
            assert last.body["errors"][0]["extensions"]["retryAfterMs"] > 0
            assert refused(await asked(another_user.client, 20)) == 0
            assert refused(await asked(key, 20)) == 0
            assert 1 <= refused(await asked(client, 30)) <= 10
            assert refused(await asked(at(client, "203.0.113.9"), 10)) == 0
            for number in range(20):
                await socket.subscribe(str(number), document)
            frames = [await socket.receive() for _ in range(20)]
        limited = [frame for frame in frames if frame["type"] == "error"]
        assert limited
        assert limited[0]["payload"][0]["extensions"]["code"] == "RATE_LIMITED"
        strangers = at(user.client.with_token("ahk_nonsense"), "203.0.113.10")
        assert [reply.codes for reply in await asked(strangers, 5)] == [["UNAUTHENTICATED"]] * 5
        assert refused(await asked(strangers, 30)) >= 1


async def test_any_number_of_requests_may_be_let_through(client: Client, server: Server, mongodb_uri: str) -> None:
    async with Server(mongodb_uri, **server.settings | {"REQUESTS_PER_MINUTE_SIGNED_OUT": "0"}) as free:
        there = Client(client.session, free.graphql)
        replies = [await there.execute("{ ratingFramework { stars } }") for _ in range(700)]

    assert {reply.status for reply in replies} == {200}


async def test_addresses_of_ipv4_are_told_apart_however_a_proxy_writes_them(client: Client, user: Person) -> None:
    assert limits.network("::ffff:198.51.100.7") == limits.network("198.51.100.7") == "198.51.100.7"
    await codes(at(client, "::ffff:198.51.100.7"), user.email, tries=35)

    assert (await login(at(client, "::ffff:192.0.2.10"), user.email, PASSWORD)).codes == []


async def test_one_address_cannot_use_up_an_accounts_tries_for_all_others(client: Client, user: Person) -> None:
    answers = await codes(at(client, "198.51.100.7"), user.email, tries=30)

    assert answers == ["UNAUTHENTICATED"] * 8 + ["RATE_LIMITED"] * 22
    assert (await login(at(client, "192.0.2.10"), user.email, PASSWORD)).codes == []


async def test_no_text_takes_long_to_be_normalised(client: Client, user: Person) -> None:
    marks = "a" + "\u0315\u0300" * 200_000

    async with asyncio.timeout(20):
        assert (await login(client, f"{marks}@example.com", "wrong")).codes == ["UNAUTHENTICATED"]
        for document in ("query ($s: String) { agents(search: $s) { totalCount } }",):
            assert (await user.client.execute(document, {"s": marks})).codes == []
