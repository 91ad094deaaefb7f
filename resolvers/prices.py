"""Prices of models: read them, set them."""

from functools import partial
from typing import Annotated

import strawberry

from auth.permissions import admins, readers
from graph.context import Info
from graph.language import nodes, pages
from graph.language.describe import object_type
from graph.language.guards import mutation, query
from graph.language.pages import After, Connection, First
from graph.prices import LIST, DeletePriceInput, DeletePricePayload, Price, SetPriceInput, SetPricePayload
from models.prices import entries


@object_type
class PriceQueries:
    """What can be asked about prices."""

    @query(allow=readers)
    async def prices(
        self,
        model: Annotated[
            str | None, strawberry.argument(description="Only those whose prefix this model's name begins with.")
        ] = None,
        first: First = None,
        after: After = None,
    ) -> Connection[Price]:
        """List what models cost, by prefix; at most 5,000."""
        wanted = pages.asked(LIST, entries.BY_PREFIX, first=first, after=after)
        page = await entries.page(model=model, window=wanted.window)
        return wanted.connection(page, Price.of, partial(entries.count, model=model))


@object_type
class PriceMutations:
    """What can be changed about prices."""

    @mutation(allow=admins)
    async def set_price(self, info: Info, input: SetPriceInput) -> SetPricePayload | None:
        """Set what some models cost from a moment on.

        It prices the events that come from now on; those that are stored keep their cost until `agenthub rebuild cost`.
        """
        now = info.context.now
        by = info.context.viewer.require_user()
        return SetPricePayload(
            price=Price.of(await info.context.services.prices.put(input.values(now), by=by, now=now))
        )

    @mutation(allow=admins)
    async def delete_price(self, info: Info, input: DeletePriceInput) -> DeletePricePayload | None:
        """Take a price out of the table. A price that AgentHub comes with does not return either."""
        await info.context.services.prices.delete(nodes.decode(input.id, "Price"), now=info.context.now)
        return DeletePricePayload(deleted_id=input.id)
