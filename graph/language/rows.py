"""From a stored row to a GraphQL type: fields of one name meet, so that adding one touches document and type alone."""

from collections.abc import Callable
from dataclasses import MISSING, fields
from typing import Any, TypeVar

from graph.language.nodes import Node, encode
from models.store.database import Row

T = TypeVar("T")


def made(cls: type[T], values: dict[str, Any]) -> T:
    """Make an object of its values without its constructor: a list has thousands, and this takes a third as long."""
    item = object.__new__(cls)
    item.__dict__ = values
    return item


def reader(cls: type[T], **derive: Callable[[Row], Any]) -> Callable[[Row], T]:
    """Make the function that builds `cls` from a row.

    Every constructor field takes the row's value of the same name (its default where the row has none); `derive`
    names the few that need another look at the row. A Node's `id` and `key` come from `_id`; a field named `row` is
    the row itself.

    The function is generated, and makes its objects as `made` does.
    """
    names: dict[str, Any] = {"made": made, "cls": cls, "encode": encode}
    values = {name: f"derive_{name}(row)" for name in derive}
    names |= {f"derive_{name}": look for name, look in derive.items()}
    if issubclass(cls, Node):
        values |= {"key": "row['_id']", "id": f"encode({cls.__name__!r}, row['_id'])"}
    for item in fields(cls):  # type: ignore[arg-type]  # every Strawberry type is a dataclass
        if item.name == "row":
            values["row"] = "row"
        elif item.init and item.name not in values:
            default = item.default_factory() if item.default_factory is not MISSING else item.default
            names[f"default_{item.name}"] = None if default is MISSING else default
            values[item.name] = f"get({item.name!r}, default_{item.name})"
    pairs = ", ".join(f"{name!r}: {value}" for name, value in values.items())
    source = f"def read(row):\n    get = row.get\n    return made(cls, {{{pairs}}})"
    exec(compile(source, f"<reader of {cls.__name__}>", "exec"), names)  # noqa: S102  # of this module's own words
    read: Callable[[Row], T] = names["read"]
    return read
