"""Prices of models as clients see and set them."""

from datetime import date, datetime
from decimal import Decimal
from typing import Any, ClassVar

from strawberry import ID, Private

import graph.users
from auth.permissions import Permission, readers
from graph.context import Context, Info
from graph.language.describe import field, input_type, object_type
from graph.language.nodes import Node, key_of
from graph.language.rows import reader
from graph.language.scalars import as_usd
from models import users
from models.prices import entries
from models.store.database import Key, Row


@object_type
class Price(Node):
    """What calls of some models cost from a moment on, in US dollars per million tokens; kept exactly, in nanodollars.

    An event that comes without a `cost` is priced by the longest `modelPrefix` that its model's name begins with and
    that had a price at the event's `at`; of two with the same prefix, the one for its provider goes before the one for
    any. Of one prefix and provider the latest `validFrom` holds. Each token costs once: cached and cache-write tokens
    are taken out of the prompt, reasoning tokens out of the completion, before these are priced. The sum is rounded
    once, to whole nanodollars, the last half to even. More than 1,000,000 US dollars for one event is taken for a
    mistake: such a cost is unknown. A change here changes no cost that is stored: `agenthub rebuild cost` does.
    """

    readable_by: ClassVar[Permission] = readers

    set_by_key: Private[Key | None]
    model_prefix: str
    """How the names of the models begin, in lower case; the case of a name does not matter."""
    provider: str | None
    """Only calls that name this provider, in lower case; null: of any, and of none."""
    valid_from: datetime
    """From when on it holds, until a later one of the same prefix and provider."""
    prompt: Decimal
    """For a million prompt tokens that are neither cached nor cache writes."""
    completion: Decimal
    """For a million completion tokens that are not reasoning."""
    cached: Decimal | None
    """For a million prompt tokens read from a cache; null: as `prompt`."""
    cache_write: Decimal | None
    """For a million prompt tokens written to a cache; null: as `prompt`."""
    reasoning: Decimal | None
    """For a million completion tokens spent on reasoning; null: as `completion`."""
    listed_on: date | None
    """As of when the list that comes with AgentHub has it so; null for one that an admin has set.
    The list has the makers' own prices for calls of ordinary length."""
    updated_at: datetime
    """When it was last set."""

    @field
    async def set_by(self, info: Info) -> graph.users.User | None:
        """Give the admin who set it; null for one of the list, or when the account is gone."""
        row = await info.context.find(users.by_keys, self.set_by_key)
        return graph.users.User.of(row) if row else None

    @classmethod
    def of(cls, row: Row) -> "Price":
        """Shape a stored price."""
        return _price(row)

    @classmethod
    async def find_node(cls, context: Context, key: str) -> "Price | None":  # noqa: ARG003  # some types ask the context
        """Find one by its key."""
        row = (await entries.by_keys([key_of(key)])).get(key_of(key))
        return cls.of(row) if row and row["deleted_at"] is None else None


def _usd(name: str) -> Any:  # noqa: ANN401  # a look at a row, of whichever column
    return lambda row: None if row[name] is None else as_usd(row[name])


_price = reader(
    Price,
    set_by_key=lambda row: row["set_by"],
    listed_on=lambda row: date.fromisoformat(row["listed_on"]) if row["listed_on"] else None,
    **{name: _usd(name) for name in entries.AMOUNTS},
)

LIST = "prices"


# ---------------------------------------------------------------- setPrice


@input_type
class SetPriceInput:
    """A price, as a whole: it takes the place of one with the same prefix, provider and beginning."""

    model_prefix: str
    """How the names of the models begin, 1 to 200 characters; the case does not matter."""
    provider: str | None = None
    """Only calls that name this provider, 1 to 100 characters; any, when left out."""
    valid_from: datetime | None = None
    """From when on, also in the past, between 2000 and 2999; now, when left out. Give it where you may retry."""
    prompt: Decimal
    """US dollars for a million prompt tokens: 0 to 100,000, at most 9 digits after the point; so are the others."""
    completion: Decimal
    """US dollars for a million completion tokens."""
    cached: Decimal | None = None
    """US dollars for a million prompt tokens read from a cache; as `prompt`, when left out."""
    cache_write: Decimal | None = None
    """US dollars for a million prompt tokens written to a cache; as `prompt`, when left out."""
    reasoning: Decimal | None = None
    """US dollars for a million completion tokens spent on reasoning; as `completion`, when left out."""

    def values(self, now: datetime) -> dict[str, Any]:
        """Give what is written of a price."""
        given = {name: getattr(self, name) for name in entries.PriceFields.model_fields}
        return given | {"valid_from": self.valid_from or now}


@object_type
class SetPricePayload:
    """The price, as it stands in the table now."""

    price: Price
    """It prices the events that come from now on. Those that are stored keep their cost."""


# ---------------------------------------------------------------- deletePrice


@input_type
class DeletePriceInput:
    """Which price to take out of the table."""

    id: ID
    """The price's id."""


@object_type
class DeletePricePayload:
    """The price is out of the table; what was priced by it keeps its cost."""

    deleted_id: ID
    """The id that it had."""
