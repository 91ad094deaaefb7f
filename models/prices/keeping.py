"""The price table in a process: events are priced by it without a look at the database, and it follows every change."""

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from models.prices import costs, entries
from models.prices.costs import Table
from models.prices.entries import Price
from models.store.database import Database, Key, Row
from models.store.held import Held


class Prices:
    """What calls cost, from memory. A change made here holds from its answer on, one made elsewhere a moment later."""

    def __init__(self, opened: Database) -> None:
        self.held: Held[Table] = Held(opened, Price, entries.table)

    def price(self, row: dict[str, Any]) -> None:
        """Write into an event as stored what it costs, where nobody has said and the table knows."""
        costs.price(row, self.held.value)

    async def put(self, values: Mapping[str, Any], *, by: Key, now: datetime) -> Row:
        """Set a price, as `entries.put` does."""
        row = await entries.put(values, by=by, now=now)
        await self.held.look()
        return row

    async def delete(self, key: Key, *, now: datetime) -> None:
        """Delete a price, as `entries.delete` does."""
        await entries.delete(key, now=now)
        await self.held.look()
