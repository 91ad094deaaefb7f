"""Sign-ins: tokens, refreshing, signing out, what is no token."""

import asyncio
import base64
import json
from datetime import UTC, datetime, timedelta

import jwt
import pytest

from auth.tokens import TokenMaker
from models.store.database import Key
from tests import factories
from tests.client import Client
from tests.factories import PASSWORD, Person
from tests.processes import Server
from tests.test_agents import refusal

ME = "{ me { email } }"
REFRESH = """
mutation ($token: String!) {
  refreshSession(input: {refreshToken: $token}) { session { accessToken refreshToken user { email } } }
}
"""
LOGOUT = "mutation { logout { success } }"


async def test_a_refresh_token_is_traded_for_new_tokens(user: Person, client: Client) -> None:
    session = (await client.query(REFRESH, token=user.refresh_token))["refreshSession"]["session"]

    assert session["user"]["email"] == user.email
    assert (await client.with_token(session["accessToken"]).query(ME))["me"]["email"] == user.email
    assert await client.query(REFRESH, token=session["refreshToken"])


async def test_a_used_refresh_token_ends_its_session(user: Person, client: Client) -> None:
    fresh = (await client.query(REFRESH, token=user.refresh_token))["refreshSession"]["session"]

    assert (await refusal(client, REFRESH, token=user.refresh_token)).code == "UNAUTHENTICATED"

    assert (await refusal(client, REFRESH, token=fresh["refreshToken"])).code == "UNAUTHENTICATED"
    assert (await refusal(client.with_token(fresh["accessToken"]), ME)).code == "UNAUTHENTICATED"


async def test_a_refresh_by_someone_shut_out_is_refused(user: Person, admin: Person, client: Client) -> None:
    change = "mutation ($input: UpdateUserInput!) { updateUser(input: $input) { user { active } } }"
    await admin.client.query(change, input={"user": user.id, "active": False})

    assert (await refusal(client, REFRESH, token=user.refresh_token)).code == "UNAUTHENTICATED"


async def test_of_two_who_refresh_at_once_at_most_one_wins(user: Person, client: Client) -> None:
    for _ in range(10):
        person = await factories.sign_in(client, email=user.email)

        replies = await asyncio.gather(*(client.execute(REFRESH, {"token": person.refresh_token}) for _ in range(6)))

        (won,) = [reply.body["data"]["refreshSession"]["session"] for reply in replies if not reply.codes]
        assert sum(reply.codes == ["UNAUTHENTICATED"] for reply in replies) == 5
        # The others have shown a used token, so the winner's session has ended too.
        assert (await refusal(client.with_token(won["accessToken"]), ME)).code == "UNAUTHENTICATED"


async def test_signing_out_kills_the_tokens_at_once(user: Person, client: Client) -> None:
    other = await factories.sign_in(client, email=user.email)

    assert (await user.client.query(LOGOUT))["logout"] == {"success": True}

    assert (await refusal(user.client, ME)).code == "UNAUTHENTICATED"
    assert (await refusal(client, REFRESH, token=user.refresh_token)).code == "UNAUTHENTICATED"
    assert (await other.client.query(ME))["me"]["email"] == user.email
    assert (await client.query(LOGOUT))["logout"] == {"success": True}


@pytest.mark.parametrize("value", ["rubbish", "a.b.c", "%00", '"', "x" * 4000])
async def test_a_broken_cookie_keeps_nobody_from_signing_in(user: Person, client: Client, value: str) -> None:
    browser = client.with_headers(Cookie=f"agenthub={value}")

    assert (await browser.query(ME))["me"] is None
    reply = await browser.execute(factories.LOGIN, {"input": {"email": user.email, "password": PASSWORD}})

    assert reply.codes == []
    cookie = reply.headers["Set-Cookie"].partition(";")[0]
    assert (await client.with_headers(Cookie=cookie).query(ME))["me"]["email"] == user.email


async def test_a_refused_sign_in_sets_no_cookie(user: Person, client: Client) -> None:
    reply = await client.execute(factories.LOGIN, {"input": {"email": user.email, "password": "wrong password"}})

    assert reply.codes == ["UNAUTHENTICATED"]
    assert "Set-Cookie" not in reply.headers


async def test_a_cookie_is_no_refresh_token_and_the_other_way_round(user: Person, client: Client) -> None:
    assert (await client.with_headers(Cookie=f"agenthub={user.access_token}").query(ME))["me"]
    assert (await client.with_headers(Cookie=f"agenthub={user.refresh_token}").query(ME))["me"] is None


async def test_a_cookie_signs_a_browser_in_and_out(user: Person, client: Client) -> None:
    reply = await client.execute(factories.LOGIN, {"input": {"email": user.email, "password": PASSWORD}})
    cookie, _, attributes = reply.headers["Set-Cookie"].partition(";")
    assert "HttpOnly" in attributes
    assert "samesite=lax" in attributes.lower()
    browser = client.with_headers(Cookie=cookie)
    assert (await browser.query(ME))["me"]["email"] == user.email

    reply = await browser.execute(LOGOUT)

    assert 'agenthub=""' in reply.headers["Set-Cookie"]
    assert (await browser.query(ME))["me"] is None
    assert (await browser.query(factories.LOGIN, input={"email": user.email, "password": PASSWORD}))["login"]


def _unsigned(kid: str, claims: dict[str, object]) -> str:
    parts = ({"alg": "none", "typ": "JWT", "kid": kid}, claims)
    return ".".join(base64.urlsafe_b64encode(json.dumps(part).encode()).decode().rstrip("=") for part in parts) + "."


async def test_what_is_no_good_token_is_refused(user: Person, client: Client, server: Server) -> None:
    now = datetime.now(UTC)
    ours = TokenMaker(server.settings["SECRET_KEY"])
    claims = jwt.decode(user.access_token, options={"verify_signature": False})
    header = jwt.get_unverified_header(user.access_token)
    person, session = Key(claims["sub"]), Key(claims["sid"])
    good, _ = ours.access(person, session, now=now)
    assert (await client.with_token(good).query(ME))["me"]["email"] == user.email

    tokens = {
        "expired": ours.access(person, session, now=now - timedelta(hours=2))[0],
        "foreign secret": TokenMaker("x" * 40).access(person, session, now=now)[0],
        "foreign secret under our kid": jwt.encode(claims, "x" * 40, algorithm="HS256", headers={"kid": header["kid"]}),
        "other algorithm": jwt.encode(
            claims, server.settings["SECRET_KEY"], algorithm="HS512", headers={"kid": header["kid"]}
        ),
        "wrong kid": jwt.encode(claims, server.settings["SECRET_KEY"], algorithm="HS256", headers={"kid": "0" * 16}),
        "no kid": jwt.encode(claims, server.settings["SECRET_KEY"], algorithm="HS256"),
        "no end": jwt.encode(
            {name: value for name, value in claims.items() if name != "exp"},
            server.settings["SECRET_KEY"],
            algorithm="HS256",
            headers={"kid": header["kid"]},
        ),
        "unsigned": _unsigned("x", claims),
        "unsigned under our kid": _unsigned(header["kid"], claims),
        "cut": good[:-2],
        "refresh token": user.refresh_token,
        "unknown session": ours.access(person, Key(), now=now)[0],
        "another's session": ours.access(Key(), session, now=now)[0],
        "nothing like it": "rubbish",
        "key like it": "ahk_00000000_rubbish",
    }
    for name, token in tokens.items():
        error = await refusal(client.with_token(token), ME)
        assert error.code == "UNAUTHENTICATED", name
    late = ours.refresh(session, 1, expires_at=now - timedelta(hours=2), now=now - timedelta(days=30))
    foreign = TokenMaker("x" * 40).refresh(session, 1, expires_at=now + timedelta(days=1), now=now)
    for token in (user.access_token, "rubbish", "", "é.é.é", late, foreign, f"{user.refresh_token[:-2]}"):
        assert (await refusal(client, REFRESH, token=token)).code == "UNAUTHENTICATED", token
    # None of these was a used token, so the session goes on.
    assert (await user.client.query(ME))["me"]["email"] == user.email
    assert await client.query(REFRESH, token=user.refresh_token)


@pytest.mark.parametrize("value", ["Basic abc", "Bearer", "Bearer  ", "token"])
async def test_another_scheme_is_refused(client: Client, value: str) -> None:
    reply = await client.with_headers(Authorization=value).execute(ME)

    assert reply.codes == ["UNAUTHENTICATED"]
    assert reply.status == 401
