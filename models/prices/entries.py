"""The price table as stored: what models cost, from when on, kept by admins and begun with a list that is shipped."""

import hashlib
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from decimal import Decimal
from typing import Annotated, Any, ClassVar, Final

from pydantic import AfterValidator, BaseModel

from models import text
from models.errors import Conflict, NotFound
from models.prices import listed
from models.prices.costs import Table
from models.store import database, migrations, pages
from models.store.database import ASCENDING, IndexModel, Key, Row, Session, Stored
from models.store.pages import Order, Page, Window

MOST: Final = 5000
EARLIEST: Final = datetime(2000, 1, 1, tzinfo=UTC)
LATEST: Final = datetime(3000, 1, 1, tzinfo=UTC)
MOST_USD: Final = Decimal(100_000)
_DIGITS: Final = 9
_PREFIX: Final = 200


def _amount(value: Decimal) -> Decimal:
    if not 0 <= value <= MOST_USD:
        raise ValueError(f"A price lies between 0 and {MOST_USD} US dollars per million tokens.")
    if value != round(value, _DIGITS):
        raise ValueError(f"A price has at most {_DIGITS} digits after the point.")
    return value


def _prefix(value: str) -> str:
    folded = text.fold(value)
    # Some letters become many.
    if len(folded) > _PREFIX:
        raise ValueError(f"At most {_PREFIX} characters, as they are compared: in lower case and without ligatures.")
    return folded


def _moment(value: datetime) -> datetime:
    if not EARLIEST <= value < LATEST:
        raise ValueError(f"A price begins between {EARLIEST:%Y-%m-%d} and {LATEST:%Y-%m-%d}.")
    # As precise as the database keeps it, so that it is found by what was read.
    return value.replace(microsecond=value.microsecond // 1000 * 1000)


Usd = Annotated[Decimal, AfterValidator(_amount)]


class PriceFields(BaseModel):
    """What admins write about a price: US dollars per million tokens."""

    model_prefix: Annotated[str, text.Line(_PREFIX), AfterValidator(_prefix)]
    provider: Annotated[str, text.Line(100), AfterValidator(text.fold)] | None = None
    valid_from: Annotated[datetime, AfterValidator(_moment)]
    prompt: Usd
    completion: Usd
    cached: Usd | None = None
    cache_write: Usd | None = None
    reasoning: Usd | None = None


class Price(Stored):
    """One line of the table. Amounts are whole nanodollars per million tokens: 0.0375 USD is 37,500,000.

    Its key is made of prefix, provider and beginning, so that there is one of each. A deleted one stays as a mark: a
    shipped list does not bring it back, and an event still says what it was priced by.
    """

    model_prefix: str
    provider: str | None
    valid_from: datetime
    prompt: int
    completion: int
    cached: int | None
    cache_write: int | None
    reasoning: int | None
    listed_on: str | None
    set_by: Key | None
    updated_at: datetime
    deleted_at: datetime | None

    class Settings:
        """Where it is stored."""

        name = "prices"
        indexes: ClassVar[list[IndexModel]] = [
            IndexModel([("deleted_at", ASCENDING), ("model_prefix", ASCENDING), ("_id", ASCENDING)], name="by prefix")
        ]


BY_PREFIX: Final = Order("model_prefix")
AMOUNTS: Final = ("prompt", "completion", "cached", "cache_write", "reasoning")


# ---------------------------------------------------------------- reads


async def table() -> Table:
    """Read the whole table."""
    # Majority: what an event was priced by must survive a failover.
    found = database.collection(Price, majority=True).find({"deleted_at": None})
    return Table(await found.to_list(None))


def _where(model: str | None) -> dict[str, Any]:
    if model is None:
        return {"deleted_at": None}
    name = text.fold(model[:_PREFIX])[:_PREFIX]
    return {"deleted_at": None, "model_prefix": {"$in": [name[:length] for length in range(1, len(name) + 1)]}}


async def page(*, model: str | None, window: Window) -> Page:
    """Read one page of prices by prefix; `model`: only those that a model of this name can have."""
    return await pages.read(database.collection(Price), _where(model), order=BY_PREFIX, window=window)


async def count(*, model: str | None) -> int:
    """Count prices."""
    return await database.collection(Price).count_documents(_where(model))


async def by_keys(keys: Sequence[Key]) -> Mapping[Key, Row]:
    """Find many prices at once, deleted ones too."""
    cursor = database.collection(Price).find({"_id": {"$in": list(keys)}})
    return {row["_id"]: row async for row in cursor}


# ---------------------------------------------------------------- writes


async def put(values: Mapping[str, Any], *, by: Key | None, now: datetime) -> Row:
    """Set a price: a new one, or in place of that with the same prefix, provider and beginning. Raises `BadInput`."""
    checked = text.validate(PriceFields, values, partial=False)
    row = _row(checked) | {"listed_on": None, "set_by": by, "updated_at": now, "deleted_at": None}
    rows = database.collection(Price)
    key = row.pop("_id")
    is_known = await rows.count_documents({"_id": key, "deleted_at": None})
    if not is_known and await rows.count_documents({"deleted_at": None}) >= MOST:
        raise Conflict(f"There are {MOST} prices already. Delete those that no event is older than any more.")
    return await database.change_and_read(rows, {"_id": key}, {"$set": row}, upsert=True)


async def delete(key: Key, *, now: datetime) -> None:
    """Take a price out of the table. What was priced by it keeps its cost."""
    done = await database.collection(Price).update_one({"_id": key, "deleted_at": None}, {"$set": {"deleted_at": now}})
    if not done.matched_count:
        raise NotFound("There is no such price.", field="id")


async def keep_list(*, now: datetime) -> None:
    """Have the prices that are shipped, once for each date of the list; what an admin has said of one stays."""

    async def install(session: Session) -> None:
        rows = database.collection(Price)
        shipped = [_row(text.validate(PriceFields, line, partial=False)) for line in listed.lines()]
        known = {
            row["_id"]: row
            async for row in rows.find({"_id": {"$in": [row["_id"] for row in shipped]}}, session=session)
        }
        marks: dict[str, Any] = {
            "listed_on": listed.ON.isoformat(),
            "set_by": None,
            "updated_at": now,
            "deleted_at": None,
        }
        new = [row | marks for row in shipped if row["_id"] not in known]
        if new:
            await rows.insert_many(new, session=session)
        for row in shipped:
            before = known.get(row["_id"])
            # Of an earlier list, and neither changed nor deleted by anybody.
            if before and (before["listed_on"] or "9") < marks["listed_on"] and before["deleted_at"] is None:
                await rows.replace_one({"_id": row["_id"]}, row | marks, session=session)

    await migrations.once(f"prices of {listed.ON}", install, now=now)


# ---------------------------------------------------------------- rules


def _row(checked: Mapping[str, Any]) -> dict[str, Any]:
    amounts = {name: None if checked[name] is None else int(checked[name].scaleb(_DIGITS)) for name in AMOUNTS}
    named = {name: checked[name] for name in ("model_prefix", "provider", "valid_from")}
    return {"_id": _key(named), **named, **amounts}


def _key(named: Mapping[str, Any]) -> Key:
    said = f"{named['model_prefix']}\x1f{named['provider'] or ''}\x1f{named['valid_from'].astimezone(UTC).isoformat()}"
    return Key(hashlib.blake2b(said.encode(), digest_size=12).digest())
