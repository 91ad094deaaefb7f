"""Accounts: unique e-mail, roles, the last admin stays."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Annotated, Any, ClassVar, Final

from email_validator import EmailNotValidError, validate_email
from pydantic import AfterValidator, BaseModel

from models import text
from models.enums import DescribedEnum
from models.errors import Conflict, NotFound
from models.store import database, pages, sequences
from models.store.database import ASCENDING, DuplicateKeyError, IndexModel, Key, Row, Session, Stored
from models.store.pages import Order, Page, Window


class Role(DescribedEnum):
    """What an account may do beyond its own things."""

    ADMIN = "ADMIN", "May change everything and manage people, keys and alert rules."
    USER = "USER", "May read everything, change what is their own, rate and report."


LONGEST_EMAIL: Final = 254


def _email(value: str) -> str:
    try:
        # Companies use names that no public server knows; whether it can be delivered is not for us to say.
        return validate_email(value, check_deliverability=False, test_environment=True).normalized.lower()
    except EmailNotValidError:
        raise ValueError("This is not an e-mail address.") from None


class UserFields(BaseModel):
    """What is written about a person."""

    email: Annotated[str, text.Line(LONGEST_EMAIL), AfterValidator(_email)]
    name: Annotated[str, text.Line(100)]
    role: Role = Role.USER
    active: bool = True


class User(Stored, UserFields):
    """One account."""

    password_hash: str
    name_folded: str
    words: list[str]
    created_at: datetime
    last_seen_at: datetime | None = None

    class Settings:
        """Where it is stored."""

        name = "users"
        indexes: ClassVar[list[IndexModel]] = [
            IndexModel([("email", ASCENDING)], unique=True, name="email"),
            IndexModel([("name_folded", ASCENDING), ("_id", ASCENDING)], name="by name_folded"),
            IndexModel([("words", ASCENDING)], name="words"),
            IndexModel([("role", ASCENDING), ("active", ASCENDING)], name="role"),
        ]


BY_NAME: Final = Order("name_folded")
_SHOWN: Final = {"password_hash": 0, "words": 0}


@dataclass(frozen=True, slots=True, kw_only=True)
class Filter:
    """Which people are meant; what is None does not matter."""

    search: str | None = None
    role: Role | None = None
    active: bool | None = None

    def where(self) -> dict[str, Any]:
        """Say it as MongoDB understands it."""
        wanted: dict[str, Any] = {}
        if self.role is not None:
            wanted["role"] = self.role.value
        if self.active is not None:
            wanted["active"] = self.active
        return {**wanted, **text.search("words", self.search)}


# ---------------------------------------------------------------- reads


async def find(user: Key) -> Row | None:
    """Find one."""
    return await database.collection(User).find_one({"_id": user}, _SHOWN)


async def by_keys(keys: Sequence[Key]) -> Mapping[Key, Row]:
    """Find many at once; those that are gone are left out."""
    return {row["_id"]: row async for row in database.collection(User).find({"_id": {"$in": list(keys)}}, _SHOWN)}


async def by_emails(emails: Sequence[str]) -> Mapping[str, Key]:
    """Find the keys of many by their e-mails, under the form in which accounts have them."""
    where = {"email": {"$in": list({as_stored(email) for email in emails})}}
    return {row["email"]: row["_id"] async for row in database.collection(User).find(where, {"email": 1})}


async def with_password(*, email: str | None = None, user: Key | None = None) -> Row | None:
    """Find one with its password hash, by e-mail or key; for those who check passwords."""
    where = {"_id": user} if user else {"email": as_stored(email or "")}
    return await database.collection(User).find_one(where)


async def acting_admins(*, session: Session) -> Sequence[Key]:
    """Give the keys of the active admins."""
    where = {"role": Role.ADMIN.value, "active": True}
    return [row["_id"] async for row in database.collection(User).find(where, {"_id": 1}, session=session)]


async def page(chosen: Filter, *, window: Window) -> Page:
    """Read one page, by name."""
    return await pages.read(database.collection(User), chosen.where(), order=BY_NAME, window=window, projection=_SHOWN)


async def count(chosen: Filter) -> int:
    """Count those a filter means."""
    return await database.collection(User).count_documents(chosen.where())


# ---------------------------------------------------------------- writes


async def create(values: Mapping[str, Any], *, password_hash: str, now: datetime, key: Key | None = None) -> Row:
    """Add an account. Raises `BadInput` with every fault, `Conflict` for an e-mail (or a key) that is taken."""
    row = {
        "_id": key or Key(),
        **text.validate(UserFields, values, partial=False),
        "password_hash": password_hash,
        "created_at": now,
        "last_seen_at": None,
    }
    try:
        await database.collection(User).insert_one(row | _derived(row))
    except DuplicateKeyError:
        raise Conflict("There is an account with this e-mail already.", field="email") from None
    return row


async def update(user: Key, values: Mapping[str, Any]) -> Row:
    """Change the given fields of an account and no others; the last active admin stays one."""
    changed = text.validate(UserFields, values)

    async def body(session: Session) -> Row:
        rows = database.collection(User)
        before = await rows.find_one({"_id": user}, session=session)
        if before is None:
            raise NotFound("There is no such person.", field="user")
        after: Row = await database.change_and_read(
            rows,
            {"_id": user},
            {"$set": changed | _derived({**before, **changed})},
            projection=_SHOWN,
            session=session,
        )
        if is_acting_admin(before) and not is_acting_admin(after):
            # Two admins who step down at once each still see the other. Both must take this number, so that the
            # second meets a conflict, starts again and counts right.
            await sequences.take("admins", 1, session=session)
            if not await rows.count_documents({"role": Role.ADMIN.value, "active": True}, session=session):
                raise Conflict("This is the last active admin. Make somebody else an admin first.", field="user")
        return after

    return await database.transaction(User, body)


async def set_password(user: Key, password_hash: str, *, was: str) -> bool:
    """Replace a password's hash; says whether the old one still stood and the account is active."""
    result = await database.collection(User).update_one(
        {"_id": user, "password_hash": was, "active": True}, {"$set": {"password_hash": password_hash}}
    )
    return bool(result.matched_count)


async def seen(user: Key, *, now: datetime) -> None:
    """Note when somebody was last here."""
    await database.collection(User).update_one({"_id": user}, {"$max": {"last_seen_at": now}})


# ---------------------------------------------------------------- rules


def as_stored(email: str) -> str:
    """Write an address as accounts have it, whether or not it is one."""
    # Nobody has such an address, and to normalise a long one may take minutes.
    if len(email) > LONGEST_EMAIL:
        return email
    # People write an address in more than one way: composed or not, a domain in letters or in Punycode.
    try:
        return _email(email.strip())
    except ValueError:
        return email.strip().lower()


def is_acting_admin(row: Row) -> bool:
    """Whether an account may act as an admin now."""
    return bool(row["role"] == Role.ADMIN and row["active"])


def _derived(row: Mapping[str, Any]) -> dict[str, Any]:
    return {"name_folded": text.fold(row["name"]), "words": text.words(row["name"], row["email"], most=50)}
