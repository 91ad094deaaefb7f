"""The old registry's documents, turned into what we store, or into the reason why they cannot be.

Its fields are in snake_case. Older versions of it wrote some things differently; what says the same is read alike.
"""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime
from typing import Any, Final

from models import text, users
from models.agents import AgentFields, AgentStatus, AuditStatus, Discipline
from models.enums import DescribedEnum
from models.errors import BadInput
from models.ratings import RatingFields
from models.store.database import Key, Row
from models.usage.snapshots import Day
from models.users import Role, UserFields

Document = Mapping[str, Any]

_DISCIPLINES: Final = {"DELIVERY": Discipline.OVERSIGHT, "OPERATIONS": Discipline.BACK_OFFICE}
_HASHES: Final = ("$2a$", "$2b$", "$2y$", "$argon2")
_MOST: Final = 10**15


class Unfit(Exception):
    """A document that cannot be moved; says why."""


@dataclass(frozen=True, slots=True)
class Person:
    """An account, its password as it was hashed."""

    values: Mapping[str, Any]
    password_hash: str
    created_at: datetime | None
    last_seen_at: datetime | None


@dataclass(frozen=True, slots=True)
class Registered:
    """An agent as written, who owns it as the old system named them, and what it had used in all."""

    values: Mapping[str, Any]
    owner: str | None
    created_at: datetime | None
    updated_at: datetime | None
    totals: Mapping[str, int]


@dataclass(frozen=True, slots=True)
class Rated:
    """One rating; agent and person as the old system named them."""

    agent: str
    user: str
    stars: int
    comment: str | None
    at: datetime | None


# ---------------------------------------------------------------- each collection


def key(row: Document) -> Key:
    """Give the key under which a document is stored here: its own, or one that follows from it.

    By it a later run knows an account or an agent again, whatever it is called by then.
    """
    identifier = row["_id"]
    if isinstance(identifier, Key):
        return identifier
    return Key(hashlib.blake2b(f"moved from {identifier}".encode(), digest_size=12).digest())


def email(row: Document) -> str:
    """Read an account's address, as accounts have it."""
    return users.as_stored(str(_first(row, "email") or ""))


def person(row: Document) -> Person:
    """Read an account."""
    email = str(_first(row, "email") or "")
    name = _first(row, "full_name", "name", "username") or email.partition("@")[0]
    hashed = str(_first(row, "hashed_password", "password_hash", "password") or "")
    if not hashed.startswith(_HASHES):
        raise Unfit("it has no password hash that can be checked")
    is_admin = str(_first(row, "role") or "").casefold() == "admin" or row.get("is_admin") is True
    values = {
        "email": email,
        "name": str(name),
        "role": Role.ADMIN if is_admin else Role.USER,
        "active": _first(row, "is_active", "active") is not False,
    }
    return Person(_fit(UserFields, values), hashed, _moment(row, "created_at"), _moment(row, "last_login", "last_seen"))


def agent(row: Document) -> Registered:
    """Read an agent."""
    tags = row.get("tags") or []
    words = tags.split(",") if isinstance(tags, str) else tags
    values: dict[str, Any] = {
        "name": str(row.get("name") or ""),
        "description": str(row.get("description") or "").replace("\r\n", "\n").replace("\r", "\n"),
        "tags": [str(tag).strip() for tag in words if str(tag).strip()],
        "discipline": _one_of(Discipline, row.get("discipline")),
        "status": _one_of(AgentStatus, row.get("status")) or AgentStatus.ACTIVE,
        "audit_status": _one_of(AuditStatus, row.get("audit_status")) or AuditStatus.NOT_AUDITED,
    }
    for name in ("project", "userbase", "department", "contact_person"):
        said = str(row.get(name) or "").strip()
        values[name] = said or None
    owner = _first(row, "owner_id", "owner", "owner_email", "created_by")
    totals = {name: _count(row, name, f"total_{name}") for name in ("messages", "conversations", "users")}
    totals |= {
        name: _count(row, name, f"total_{name}") for name in ("total_tokens", "prompt_tokens", "completion_tokens")
    }
    return Registered(
        _fit(AgentFields, values),
        reference(owner) if owner else None,
        _moment(row, "created_at"),
        _moment(row, "updated_at"),
        {name: value for name, value in totals.items() if value is not None},
    )


def day(row: Document) -> Day:
    """Read what an agent used on one day."""
    said = _first(row, "date", "day")
    when = said.date() if isinstance(said, datetime) else _date(said)
    prompt, completion = _count(row, "prompt_tokens") or 0, _count(row, "completion_tokens") or 0
    total = _count(row, "total_tokens", "tokens")
    if total is not None and total < prompt + completion:
        raise Unfit("its total is below prompt and completion tokens together")
    return Day(
        when, _count(row, "messages") or 0, total if total is not None else prompt + completion, prompt, completion
    )


def rating(row: Document) -> Rated:
    """Read a rating."""
    stars = _first(row, "rating", "stars")
    whole = int(stars) if isinstance(stars, float) and stars.is_integer() else stars
    said = str(_first(row, "comment", "feedback") or "").replace("\r\n", "\n").strip()
    values = _fit(RatingFields, {"stars": whole, "comment": said or None})
    return Rated(
        of(row),
        reference(_first(row, "user_id", "user_email", "user", "email")),
        values["stars"],
        values["comment"],
        _moment(row, "updated_at", "created_at"),
    )


def notified(row: Document) -> datetime:
    """Read when somebody was last told that an agent is past its threshold."""
    at = _moment(row, "sent_at", "notified_at", "last_notified_at", "created_at")
    if at is None:
        raise Unfit("it does not say when")
    return at


def of(row: Document) -> str:
    """Give the agent that a document is about, by id or by name."""
    return reference(_first(row, "agent_id", "agent_name", "agent"))


def reference(value: object) -> str:
    """Write an id or a name as text, so that those stored as text and as ids meet."""
    if value is None or not str(value).strip():
        raise Unfit("it does not say of what or by whom")
    return str(value).strip()


# ---------------------------------------------------------------- values


def _first(row: Document, *names: str) -> Any:  # noqa: ANN401  # whatever is stored there
    return next((row[name] for name in names if row.get(name) is not None), None)


def _fit(model: type[UserFields | AgentFields | RatingFields], values: Row) -> dict[str, Any]:
    try:
        return text.validate(model, values, partial=False)
    except BadInput as error:
        raise Unfit(f"{error.field}: {error.message}") from None


def _one_of(enum: type[DescribedEnum], said: object) -> DescribedEnum | None:
    if said is None or not str(said).strip():
        return None
    written = "_".join(str(said).replace("_", " ").replace("-", " ").split()).upper()
    found = _DISCIPLINES.get(written) if enum is Discipline else None
    if found is None and written not in enum.__members__:
        raise Unfit(f"{str(said)[:50]!r} is none of {', '.join(enum.__members__)}")
    return found or enum[written]


def _count(row: Document, *names: str) -> int | None:
    value = _first(row, *names)
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float) or value != value or value != int(value):  # noqa: PLR0124  # NaN
        raise Unfit(f"{names[0]} is no whole number")
    if not 0 <= value <= _MOST:
        raise Unfit(f"{names[0]} is out of range")
    return int(value)


def _moment(row: Document, *names: str) -> datetime | None:
    value = _first(row, *names)
    if isinstance(value, str):
        try:
            value = datetime.fromisoformat(value.strip())
        except ValueError:
            raise Unfit(f"{names[0]} is no time") from None
    if value is None or not isinstance(value, datetime):
        return None
    return value if value.tzinfo else value.replace(tzinfo=UTC)


def _date(said: object) -> date:
    try:
        return date.fromisoformat(str(said).strip()[:10])
    except ValueError:
        raise Unfit("it does not say of which day") from None


def added(days: Sequence[Day]) -> list[Day]:
    """Add up what was written of one day in several documents."""
    sums: dict[date, list[int]] = {}
    for each in days:
        line = sums.setdefault(each.day, [0, 0, 0, 0])
        figures = (each.messages, each.total_tokens or 0, each.prompt_tokens or 0, each.completion_tokens or 0)
        for place, value in enumerate(figures):
            line[place] += value
    return [Day(when, *sums[when]) for when in sorted(sums)]
