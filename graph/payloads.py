"""What may be sent to agents, as clients see it."""

import orjson
from strawberry import Private

from graph.language.describe import object_type
from graph.language.rows import reader
from graph.language.scalars import JSON
from models.store.database import Row


@object_type
class PayloadType:
    """One kind of message that an agent takes."""

    row: Private[Row]
    name: str
    """What a message says in `payloadType`."""
    description: str
    """What it is for; empty when nobody has said."""
    schema: JSON
    """The JSON Schema (Draft 2020-12) that a payload has to fit."""
    example: JSON | None
    """A payload that fits; null when none is declared."""

    @classmethod
    def of(cls, row: Row) -> "PayloadType":
        """Shape a declared payload type."""
        return _payload_type(row)


_payload_type = reader(
    PayloadType,
    schema=lambda row: orjson.loads(row["schema"]),
    example=lambda row: orjson.loads(row["example"]) if row["example"] is not None else None,
)
