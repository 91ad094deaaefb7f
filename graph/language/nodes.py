"""Global ids, and the Node interface that `node(id:)` finds anything by."""

import base64
import binascii
from collections.abc import Sequence
from typing import Any, ClassVar, Final

import strawberry
from strawberry import ID

from auth.permissions import Permission
from graph.language.describe import interface_type
from models.errors import BadInput
from models.store import database
from models.store.database import Key

_MOST: Final = 100


def encode(kind: str, key: Key | int | str) -> ID:
    """Make the global id of a stored document."""
    return ID(database.global_id(kind, key))


def split(identifier: str, *, field: str = "id") -> tuple[str, str]:
    """Read a global id back into type name and key. Raises `BadInput` for what is none."""
    try:
        text = base64.b64decode(identifier.encode("ascii"), validate=True).decode("ascii")
        kind, separator, key = text.partition(":")
    except (ValueError, binascii.Error):
        kind, separator, key = "", "", ""
    if not (separator and kind and key):
        raise BadInput.at(field, "This is not an id of this service. Ids come from the `id` field of what you queried.")
    return kind, key


def decode(identifier: str, kind: str, *, field: str = "id") -> Key:
    """Read the key out of a global id of one type. Raises `BadInput` for another type's or a broken one."""
    found, key = split(identifier, field=field)
    if found != kind:
        raise BadInput.at(field, f"This id is of type {found}, not {kind}." if found.isalnum() else "Broken id.")
    return key_of(key, field=field)


def decode_all(identifiers: Sequence[str], kind: str, *, field: str) -> frozenset[Key]:
    """Read the keys out of at most 100 ids of one type. Raises `BadInput` for the first that is not of it."""
    if len(identifiers) > _MOST:
        raise BadInput.at(field, f"At most {_MOST} ids.")
    return frozenset(decode(each, kind, field=f"{field}.{place}") for place, each in enumerate(identifiers))


def decode_text(identifier: str, kind: str, *, field: str = "id") -> str:
    """Do as `decode`, for types whose key is text."""
    found, key = split(identifier, field=field)
    if found != kind:
        raise BadInput.at(field, f"This id is not of type {kind}.")
    return key


def decode_number(identifier: str, kind: str, *, field: str = "id") -> int:
    """Do as `decode`, for types whose key is a number."""
    found, key = split(identifier, field=field)
    if found != kind or not key.isdecimal() or len(key) > 18:  # noqa: PLR2004  # what 64 bits hold
        raise BadInput.at(field, f"This id is not of type {kind}.")
    return int(key)


def key_of(text: str, *, field: str = "id") -> Key:
    """Read the key part of a global id. Raises `BadInput` for what is none."""
    if not Key.is_valid(text):
        raise BadInput.at(field, "This id is broken.")
    return Key(text)


@interface_type
class Node:
    """Anything that has an id of its own and can be found again by `node(id:)`."""

    id: ID
    """Global id: opaque, stable, unique among all types."""

    key: strawberry.Private[Any]
    readable_by: ClassVar[Permission]
