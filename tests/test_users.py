"""People: accounts, what they may change, the last admin."""

import asyncio
import base64
import itertools
from datetime import UTC, datetime

import bcrypt
import pytest

from models import users
from models.store.database import Database, Key
from models.store.pages import Window
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
    assert error.message == "There is an account with this e-mail already."
    assert await users.count(users.Filter()) == 1


async def test_of_many_who_register_one_email_at_once_one_gets_it(client: Client, store: Database) -> None:
    spellings = ["same@example.com", "SAME@example.com", " Same@Example.com"] * 2

    replies = await asyncio.gather(
        *(client.execute(REGISTER, {"input": {"email": each, "name": "X", "password": PASSWORD}}) for each in spellings)
    )

    assert sorted(code for reply in replies for code in reply.codes) == ["CONFLICT"] * 5
    assert await users.count(users.Filter()) == 1


@pytest.mark.parametrize(
    ("registered", "typed"),
    [
        ("zoë@example.com", "zoe\u0308@example.com"),
        ("ÜBER@example.com", "u\u0308ber@EXAMPLE.com"),
        ("someone@bücher.example", "someone@xn--bcher-kva.example"),
        ("plain@example.com", "  Plain@Example.COM "),
    ],
)
async def test_an_email_signs_in_however_it_is_written(client: Client, registered: str, typed: str) -> None:
    person = await factories.sign_up(client, email=registered)

    assert (await factories.sign_in(client, email=typed)).id == person.id


@pytest.mark.parametrize(
    "email",
    [
        *("", "no", "a@b", "@example.com", "a@", "a b@example.com", "Bob <b@example.com>", "a@@example.com"),
        *("a@[127.0.0.1]", "a\x00@example.com", "a\n@example.com", "a@" + "b." * 130 + "com"),
    ],
)
async def test_what_is_no_email_is_refused(client: Client, store: Database, email: str) -> None:
    error = await refusal(client, REGISTER, input={"email": email, "name": "X", "password": PASSWORD})

    assert (error.code, error.field) == ("BAD_USER_INPUT", "email")
    assert [each["path"] for each in error.errors[0]["extensions"]["fields"]] == [["email"]]
    assert await users.count(users.Filter()) == 0


@pytest.mark.parametrize("name", ["", "   ", "x" * 300, "x" * 101, "a\x00b", "a\nb", "a\x7fb", "a\u0085b", "a\u2028b"])
async def test_a_name_that_is_none_is_refused(user: Person, client: Client, name: str) -> None:
    for error in (
        await refusal(client, REGISTER, input={"email": "new@example.com", "name": name, "password": PASSWORD}),
        await refusal(user.client, PROFILE, input={"name": name}),
    ):
        assert (error.code, error.field) == ("BAD_USER_INPUT", "name")
    assert await users.count(users.Filter()) == 1
    assert (await user.client.query(ME))["me"]["name"] == "Someone"


@pytest.mark.parametrize(
    "name",
    [
        "👩‍👩‍👧‍👦",
        "مريم بنت عمران",
        "\u200fעברית\u200e (ltr)",
        "क्\u200dष",
        "e\u0301 and é",
        "Ω ≠ Ω",
        "🇩🇪",
        "x" * 100,
        "𝒳" * 100,
    ],
)
async def test_a_name_is_kept_byte_for_byte(client: Client, name: str) -> None:
    person = await factories.sign_up(client, email="new@example.com", name=name)

    assert (await person.client.query(ME))["me"]["name"] == name
    assert (await person.client.query(PROFILE, input={"name": name}))["updateProfile"]["user"]["name"] == name


async def test_every_fault_of_a_registration_is_told_at_once(client: Client, store: Database) -> None:
    error = await refusal(client, REGISTER, input={"email": "no", "name": "a\x00", "password": "short"})

    assert error.code == "BAD_USER_INPUT"
    fields = error.errors[0]["extensions"]["fields"]
    assert sorted(each["path"] for each in fields) == [["email"], ["name"], ["password"]]
    assert all(each["message"] and each["code"] for each in fields)
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
    error = await refusal(user.client, CHANGE, input={**given, "newPassword": "short"})
    assert (error.code, error.field) == ("BAD_USER_INPUT", "newPassword")
    assert (await other.client.query(ME))["me"]["email"] == user.email
    await user.client.query(CHANGE, input=given)

    assert (await user.client.query(ME))["me"]["email"] == user.email
    assert (await refusal(other.client, ME)).code == "UNAUTHENTICATED"
    assert (await refusal(client, factories.LOGIN, input={"email": user.email, "password": PASSWORD})).code == (
        "UNAUTHENTICATED"
    )
    await factories.sign_in(client, email=user.email, password="a better horse")


async def test_of_two_new_passwords_at_once_one_is_kept(client: Client, user: Person) -> None:
    new = [f"new password {number}" for number in range(4)]

    replies = await asyncio.gather(
        *(user.client.execute(CHANGE, {"input": {"currentPassword": PASSWORD, "newPassword": each}}) for each in new)
    )

    won = [password for password, reply in zip(new, replies, strict=True) if not reply.codes]
    assert len(won) == 1
    assert sum(reply.codes == ["BAD_USER_INPUT"] for reply in replies) == 3
    await factories.sign_in(client, email=user.email, password=won[0])


async def test_no_session_lives_on_an_old_password(client: Client, user: Person, store: Database) -> None:
    passwords = [PASSWORD, "a better horse"]
    for number in range(20):
        await store.handle["buckets"].delete_many({})
        old, new = passwords[number % 2], passwords[(number + 1) % 2]
        logins = [client.execute(factories.LOGIN, {"input": {"email": user.email, "password": old}}) for _ in range(4)]

        *replies, _ = await asyncio.gather(
            *logins, user.client.query(CHANGE, input={"currentPassword": old, "newPassword": new})
        )

        for reply in replies:
            if not reply.codes:
                token = reply.body["data"]["login"]["session"]["accessToken"]
                assert (await refusal(client.with_token(token), ME)).code == "UNAUTHENTICATED"
        await factories.sign_in(client, email=user.email, password=new)


async def test_an_upgraded_hash_does_not_undo_a_new_password(user: Person) -> None:
    key = Key(base64.b64decode(user.id).decode().partition(":")[2])
    row = await users.with_password(user=key)
    assert row is not None
    # A sign-in has checked the old hash; before it stores a better one, the password changes.
    await user.client.query(CHANGE, input={"currentPassword": PASSWORD, "newPassword": "a better horse"})
    changed = await users.with_password(user=key)

    assert not await users.set_password(key, "better hash of the old", was=row["password_hash"])

    assert await users.with_password(user=key) == changed


async def test_admins_create_and_list_people(client: Client, admin: Person) -> None:
    for number in range(3):
        values = {"email": f"p{number}@corp.example", "name": f"Person {number}", "password": PASSWORD, "role": "USER"}
        await admin.client.query(CREATE, input=values)

    first = (await admin.client.query(USERS, first=3))["users"]
    second = (await admin.client.query(USERS, first=3, after=first["pageInfo"]["endCursor"]))["users"]

    assert first["totalCount"] == 4
    assert (first["pageInfo"]["hasNextPage"], second["pageInfo"]["hasNextPage"]) == (True, False)
    assert [node["email"] for node in first["nodes"] + second["nodes"]] == [
        "admin@example.com",
        *(f"p{number}@corp.example" for number in range(3)),
    ]
    for filters, count in (
        ({"search": "pers 2"}, 1),
        ({"search": "PÉRS"}, 3),
        ({"search": "erson"}, 0),
        ({"search": "!!!"}, 0),
        ({"search": "p1@corp.ex"}, 1),
        ({"search": "pers", "role": "ADMIN"}, 0),
        ({"role": "ADMIN"}, 1),
        ({"active": True}, 4),
        ({"active": False}, 0),
    ):
        assert (await admin.client.query(USERS, **filters))["users"]["totalCount"] == count, filters


async def test_people_of_one_name_are_listed_once_each(client: Client, admin: Person) -> None:
    everybody = {(await factories.sign_up(client, email=f"n{number}@example.com")).email for number in range(5)}
    listed: list[str] = []
    after = None

    while True:
        page = (await admin.client.query(USERS, search="someone", first=2, after=after))["users"]
        listed += [node["email"] for node in page["nodes"]]
        after = page["pageInfo"]["endCursor"]
        if not page["pageInfo"]["hasNextPage"]:
            break

    assert len(listed) == len(everybody)
    assert set(listed) == everybody


@pytest.mark.parametrize(
    ("arguments", "field"), [({"first": 0}, "first"), ({"first": 101}, "first"), ({"after": "rubbish"}, "after")]
)
async def test_a_page_that_cannot_be_is_refused(admin: Person, arguments: dict[str, object], field: str) -> None:
    error = await refusal(admin.client, USERS, **arguments)

    assert (error.code, error.field) == ("BAD_USER_INPUT", field)


async def test_what_is_nobody_cannot_be_changed(admin: Person) -> None:
    missing = base64.b64encode(b"User:" + b"65" * 12).decode()

    for identifier, code in ((missing, "NOT_FOUND"), ("rubbish", "BAD_USER_INPUT"), ("", "BAD_USER_INPUT")):
        error = await refusal(admin.client, UPDATE, input={"user": identifier, "role": "USER"})
        assert (error.code, error.field) == (code, "user")
    for change in ("role", "active"):
        error = await refusal(admin.client, UPDATE, input={"user": admin.id, change: None})
        assert (error.code, error.field) == ("BAD_USER_INPUT", change)
    assert (await admin.client.query(ME))["me"] == {
        "email": admin.email,
        "name": "Admin",
        "role": "ADMIN",
        "active": True,
    }


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
    assert (await refusal(user.client, count)).code == "UNAUTHENTICATED"
    await factories.sign_in(client, email=user.email)
    await key.query(count)


async def test_a_role_counts_from_the_next_request(admin: Person, user: Person) -> None:
    assert (await refusal(user.client, USERS)).code == "FORBIDDEN"

    await admin.client.query(UPDATE, input={"user": user.id, "role": "ADMIN"})

    assert (await user.client.query(USERS))["users"]["totalCount"] == 2
    await admin.client.query(UPDATE, input={"user": user.id, "role": "USER"})
    assert (await refusal(user.client, USERS)).code == "FORBIDDEN"


async def test_the_last_admin_stays_even_when_all_step_down_at_once(admin: Person, client: Client) -> None:
    for change in ({"role": "USER"}, {"active": False}):
        error = await refusal(admin.client, UPDATE, input={"user": admin.id, **change})
        assert (error.code, error.field) == ("CONFLICT", "user")
        assert error.message == "This is the last active admin. Make somebody else an admin first."
        assert (await admin.client.query(ME))["me"]["role"] == "ADMIN"
    second = await factories.sign_in_admin(client, email="second@example.com")

    for number in range(24):
        # Each steps down, or each demotes the other.
        pairs = zip((admin, second), (admin, second) if number % 2 else (second, admin), strict=True)
        await asyncio.gather(
            *(by.client.execute(UPDATE, {"input": {"user": whom.id, "role": "USER"}}) for by, whom in pairs)
        )
        assert await users.count(users.Filter(role=Role.ADMIN, active=True)) == 1
        left = admin if (await admin.client.query(ME))["me"]["role"] == "ADMIN" else second
        await left.client.query(UPDATE, input={"user": admin.id, "role": "ADMIN"})
        await left.client.query(UPDATE, input={"user": second.id, "role": "ADMIN"})


async def test_one_admin_is_left_when_they_shut_each_other_out(admin: Person, client: Client) -> None:
    second = await factories.sign_in_admin(client, email="second@example.com")

    for number in range(12):
        change = {"active": False} if number % 2 else {"role": "USER"}
        await asyncio.gather(
            admin.client.execute(UPDATE, {"input": {"user": second.id, "active": False}}),
            second.client.execute(UPDATE, {"input": {"user": admin.id, **change}}),
        )

        (left,) = (await users.page(users.Filter(role=Role.ADMIN, active=True), window=Window(2))).rows
        for person in (admin, second):
            key = Key(base64.b64decode(person.id).decode().partition(":")[2])
            if key != left["_id"]:
                await users.update(key, {"role": Role.ADMIN, "active": True})
        admin, second = [await factories.sign_in(client, email=each.email) for each in (admin, second)]


async def test_known_and_unknown_emails_are_answered_alike(user: Person, admin: Person, client: Client) -> None:
    hashed = bcrypt.hashpw(b"old password", bcrypt.gensalt(4)).decode()
    await users.create({"email": "old@example.com", "name": "Old"}, password_hash=hashed, now=datetime.now(UTC))
    gone = await factories.sign_up(client, email="gone@example.com")
    await admin.client.query(UPDATE, input={"user": gone.id, "active": False})
    emails = (user.email, "old@example.com", "nobody@example.com", "", "\u0000", "a" * 100_000)
    # No password is like these; what is checked must not depend on how the account's own is stored.
    wrong = ("wrong password", "", "nul \u0000 within", "x" * 129, "x" * 5000, "é" * 5000)

    answers = [
        (
            await client.with_headers(X_Forwarded_For=f"192.0.2.{n}").execute(
                factories.LOGIN, {"input": {"email": email, "password": password}}
            )
        ).body
        for n, (email, password) in enumerate([*itertools.product(emails, wrong), ("gone@example.com", PASSWORD)])
    ]

    assert [error["extensions"] for error in answers[0]["errors"]] == [{"code": "UNAUTHENTICATED"}]

    assert all(answer == answers[0] for answer in answers)


async def test_an_old_bcrypt_hash_signs_in_and_is_upgraded(client: Client, store: Database) -> None:
    password = "old password that is longer than bcrypt's seventy-two bytes, which the old system cut off"
    hashed = bcrypt.hashpw(password.encode()[:72], bcrypt.gensalt(4)).decode()
    row = await users.create({"email": "old@example.com", "name": "Old"}, password_hash=hashed, now=datetime.now(UTC))

    await refusal(client, factories.LOGIN, input={"email": "old@example.com", "password": "wrong" + password})
    await factories.sign_in(client, email="old@example.com", password=password)

    stored = await users.with_password(user=row["_id"])
    assert stored is not None
    assert stored["password_hash"].startswith("$argon2id$")
    await factories.sign_in(client, email="old@example.com", password=password)


async def test_people_who_sign_in_at_once_with_an_old_hash_all_get_in(client: Client, store: Database) -> None:
    hashed = bcrypt.hashpw(b"old password", bcrypt.gensalt(4)).decode()
    await users.create({"email": "old@example.com", "name": "Old"}, password_hash=hashed, now=datetime.now(UTC))

    people = await asyncio.gather(
        *(factories.sign_in(client, email="old@example.com", password="old password") for _ in range(6))
    )

    for person in people:
        assert (await person.client.query(ME))["me"]["email"] == "old@example.com"
