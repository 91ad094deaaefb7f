"""People: accounts, what they may change, the last admin."""

import asyncio
from datetime import UTC, datetime

import bcrypt
import pytest

from models import users
from models.store.database import Database
from models.users import Role
from tests import factories
from tests.client import Client
from tests.factories import PASSWORD, REGISTER, Person
from tests.test_agents import refusal

ME = "{ me { email name role active } }"
PROFILE = "mutation ($input: UpdateProfileInput!) { updateProfile(input: $input) { user { name } } }"
CHANGE = "mutation ($input: ChangePasswordInput!) { changePassword(input: $input) { user { email } } }"
UPDATE = "mutation ($input: UpdateUserInput!) { updateUser(input: $input) { user { role active } } }"
CREATE = "mutation ($input: CreateUserInput!) { createUser(input: $input) { user { email role } } }"
USERS = """
query ($search: String, $role: Role, $active: Boolean, $first: Int, $after: String) {
  users(search: $search, role: $role, active: $active, first: $first, after: $after) {
    totalCount pageInfo { endCursor hasNextPage } nodes { email }
  }
}
"""


async def test_who_registers_is_signed_in(client: Client) -> None:
    person = await factories.sign_up(client, email="New@Example.com", name="Zoë 🦊")

    assert (await person.client.query(ME))["me"] == {
        "email": "new@example.com",
        "name": "Zoë 🦊",
        "role": "USER",
        "active": True,
    }
    assert (await client.query(ME))["me"] is None


async def test_an_email_is_unique_without_regard_to_case(user: Person, client: Client) -> None:
    error = await refusal(client, REGISTER, input={"email": user.email.upper(), "name": "X", "password": PASSWORD})

    assert (error.code, error.field) == ("CONFLICT", "email")


async def test_every_fault_of_a_registration_is_told_at_once(client: Client, store: Database) -> None:
    error = await refusal(client, REGISTER, input={"email": "no", "name": "a\x00", "password": "short"})

    assert error.code == "BAD_USER_INPUT"
    assert {each["path"][0] for each in error.errors[0]["extensions"]["fields"]} == {"email", "name", "password"}
    assert await users.count(users.Filter()) == 0


@pytest.mark.parametrize(
    "password", ["", "1234567", "password1", "aaaaaaaa", "x" * 129, "user@example.com", "abc\x00defgh"]
)
async def test_a_weak_password_is_refused(client: Client, store: Database, password: str) -> None:
    error = await refusal(client, REGISTER, input={"email": "user@example.com", "name": "X", "password": password})

    assert (error.code, error.field) == ("BAD_USER_INPUT", "password")
    assert await users.count(users.Filter()) == 0


async def test_a_profile_changes_what_it_may_and_nothing_else(user: Person) -> None:
    assert (await user.client.query(PROFILE, input={"name": "New name"}))["updateProfile"]["user"]["name"] == "New name"

    for values in ({"role": "ADMIN"}, {"email": "x@example.com"}, {"active": False}):
        assert (await user.client.execute(PROFILE, {"input": values})).codes == ["BAD_USER_INPUT"]
    assert (await user.client.query(ME))["me"]["role"] == "USER"


async def test_a_new_password_ends_the_other_sessions(client: Client, user: Person) -> None:
    other = await factories.sign_in(client, email=user.email)
    given = {"currentPassword": PASSWORD, "newPassword": "a better horse"}

    error = await refusal(user.client, CHANGE, input={**given, "currentPassword": "wrong"})
    assert (error.code, error.field) == ("BAD_USER_INPUT", "currentPassword")
    await user.client.query(CHANGE, input=given)

    assert (await user.client.query(ME))["me"]["email"] == user.email
    assert (await refusal(other.client, ME)).code == "UNAUTHENTICATED"
    assert (await refusal(client, factories.LOGIN, input={"email": user.email, "password": PASSWORD})).code == (
        "UNAUTHENTICATED"
    )
    await factories.sign_in(client, email=user.email, password="a better horse")


async def test_admins_create_and_list_people(client: Client, admin: Person) -> None:
    for number in range(3):
        values = {"email": f"p{number}@corp.example", "name": f"Person {number}", "password": PASSWORD, "role": "USER"}
        await admin.client.query(CREATE, input=values)

    first = (await admin.client.query(USERS, first=3))["users"]
    second = (await admin.client.query(USERS, first=3, after=first["pageInfo"]["endCursor"]))["users"]

    assert first["totalCount"] == 4
    assert [node["email"] for node in first["nodes"] + second["nodes"]] == [
        "admin@example.com",
        *(f"p{number}@corp.example" for number in range(3)),
    ]
    assert (await admin.client.query(USERS, search="pers 2"))["users"]["totalCount"] == 1
    assert (await admin.client.query(USERS, role="ADMIN"))["users"]["totalCount"] == 1
    assert (await admin.client.query(USERS, active=False))["users"]["totalCount"] == 0


async def test_deactivation_shuts_out_at_once_and_can_be_undone(admin: Person, user: Person, client: Client) -> None:
    key = await factories.api_key(user, "READ")
    count = "{ agents { totalCount } }"
    await key.query(count)

    await admin.client.query(UPDATE, input={"user": user.id, "active": False})

    for shut_out in (user.client, key):
        assert (await refusal(shut_out, count)).code == "UNAUTHENTICATED"
    assert (await refusal(client, factories.LOGIN, input={"email": user.email, "password": PASSWORD})).code == (
        "UNAUTHENTICATED"
    )
    await admin.client.query(UPDATE, input={"user": user.id, "active": True})
    await factories.sign_in(client, email=user.email)
    await key.query(count)


async def test_a_role_counts_from_the_next_request(admin: Person, user: Person) -> None:
    assert (await refusal(user.client, USERS)).code == "FORBIDDEN"

    await admin.client.query(UPDATE, input={"user": user.id, "role": "ADMIN"})

    assert (await user.client.query(USERS))["users"]["totalCount"] == 2


async def test_the_last_admin_stays_even_when_all_step_down_at_once(admin: Person, client: Client) -> None:
    for change in ({"role": "USER"}, {"active": False}):
        error = await refusal(admin.client, UPDATE, input={"user": admin.id, **change})
        assert (error.code, error.field) == ("CONFLICT", "user")
    second = await factories.sign_in_admin(client, email="second@example.com")

    for _ in range(8):
        await asyncio.gather(
            *(each.client.execute(UPDATE, {"input": {"user": each.id, "role": "USER"}}) for each in (admin, second))
        )
        assert await users.count(users.Filter(role=Role.ADMIN, active=True)) == 1
        left = admin if (await admin.client.query(ME))["me"]["role"] == "ADMIN" else second
        await left.client.query(UPDATE, input={"user": admin.id, "role": "ADMIN"})
        await left.client.query(UPDATE, input={"user": second.id, "role": "ADMIN"})


async def test_known_and_unknown_emails_are_answered_alike(user: Person, client: Client) -> None:
    answers = [
        (await client.execute(factories.LOGIN, {"input": {"email": email, "password": "wrong password"}})).body
        for email in (user.email, "nobody@example.com", "", "\u0000")
    ]

    assert all(answer == answers[0] for answer in answers)


async def test_an_old_bcrypt_hash_signs_in_and_is_upgraded(client: Client, store: Database) -> None:
    password = "old password that is longer than bcrypt's seventy-two bytes, which the old system cut off"
    hashed = bcrypt.hashpw(password.encode()[:72], bcrypt.gensalt(4)).decode()
    row = await users.create({"email": "old@example.com", "name": "Old"}, password_hash=hashed, now=datetime.now(UTC))

    await factories.sign_in(client, email="old@example.com", password=password)

    stored = await users.with_password(user=row["_id"])
    assert stored is not None
    assert stored["password_hash"].startswith("$argon2id$")
    await factories.sign_in(client, email="old@example.com", password=password)
