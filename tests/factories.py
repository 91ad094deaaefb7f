"""People, made through the front door."""

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from auth.passwords import Passwords
from auth.registration import Registration
from models.users import Role
from tests.client import Client

PASSWORD = "correct horse battery staple"

REGISTER = """
mutation ($input: RegisterInput!) {
  register(input: $input) { session { accessToken refreshToken user { id email } } }
}
"""
LOGIN = """
mutation ($input: LoginInput!) {
  login(input: $input) { session { accessToken refreshToken user { id email } } }
}
"""
CREATE_KEY = """
mutation ($input: CreateApiKeyInput!) { createApiKey(input: $input) { secret apiKey { id prefix } } }
"""


@dataclass(frozen=True, slots=True)
class Person:
    """Somebody signed in; `client` speaks for them."""

    client: Client
    id: str
    email: str
    access_token: str
    refresh_token: str


async def sign_up(client: Client, *, email: str, name: str = "Someone", password: str = PASSWORD) -> Person:
    """Register somebody, which signs them in."""
    data = await client.query(REGISTER, input={"email": email, "name": name, "password": password})
    return _person(client, data["register"]["session"])


async def sign_in(client: Client, *, email: str, password: str = PASSWORD) -> Person:
    """Sign somebody in."""
    data = await client.query(LOGIN, input={"email": email, "password": password})
    return _person(client, data["login"]["session"])


async def sign_in_admin(client: Client, *, email: str = "admin@example.com", password: str = PASSWORD) -> Person:
    """Make an admin as the command line does, and sign them in."""
    async with Passwords("cheap") as passwords:
        await Registration(passwords).create(
            email=email, name="Admin", password=password, role=Role.ADMIN, now=datetime.now(UTC)
        )
    return await sign_in(client, email=email, password=password)


async def api_key(person: Person, *scopes: str, name: str = "a key", **options: object) -> Client:
    """Make an API key, and give the client that shows it."""
    values = {"name": name, "scopes": list(scopes), **options}
    data = await person.client.query(CREATE_KEY, input=values)
    return person.client.with_token(data["createApiKey"]["secret"])


def _person(client: Client, session: dict[str, Any]) -> Person:
    token = session["accessToken"]
    return Person(
        client.with_token(token), session["user"]["id"], session["user"]["email"], token, session["refreshToken"]
    )
