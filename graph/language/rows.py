"""From a stored row to a GraphQL type: fields of one name meet, so that adding one touches document and type alone."""

from collections.abc import Callable
from dataclasses import MISSING, fields
from typing import Any, TypeVar

from graph.language.nodes import Node, encode
from models.store.database import Row

T = TypeVar("T")


def reader(cls: type[T], **derive: Callable[[Row], Any]) -> Callable[[Row], T]:
    """Make the function that builds `cls` from a row.

    Every constructor field takes the row's value of the same name (its default where the row has none); `derive`
    names the few that need another look at the row. A Node's `id` and `key` come from `_id`.
    """
    plain: list[tuple[str, Any]] = []
    for item in fields(cls):  # type: ignore[arg-type]  # every Strawberry type is a dataclass
        if item.init and item.name not in {"id", "key", *derive}:
            default = item.default_factory() if item.default_factory is not MISSING else item.default
            plain.append((item.name, None if default is MISSING else default))
    kind = cls.__name__
    is_node = issubclass(cls, Node)

    def read(row: Row) -> T:
        values = {name: row.get(name, default) for name, default in plain}
        for name, look in derive.items():
            values[name] = look(row)
        if is_node:
            values["key"] = row["_id"]
            values["id"] = encode(kind, row["_id"])
        return cls(**values)

    return read
