"""Trusted documents: the documents of our own frontends, known by their hash; others may be refused."""

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final, Literal, Self

import orjson

from models.errors import AgentHubError, BadInput, Forbidden, Refused

Mode = Literal["off", "prefer", "require"]

_PREFIX: Final = "sha256:"


class PersistedQueryNotSupported(AgentHubError):
    """Apollo and urql send a hash first, and the whole document when they read this."""

    code = "PERSISTED_QUERY_NOT_SUPPORTED"


class TrustedDocuments:
    """A manifest from hash (SHA-256, hexadecimal) to document, and what becomes of documents that are not in it."""

    def __init__(self, manifest: Mapping[str, str], *, mode: Mode) -> None:
        """`mode`: "off" knows none, "prefer" runs others too, "require" refuses them."""
        self._manifest = manifest if mode != "off" else {}
        self._required = mode == "require"

    @classmethod
    def load(cls, path: Path | None, *, mode: Mode) -> Self:
        """Read a manifest. Raises `Refused` for one that cannot be read, and for a hash that is not its document's."""
        if mode == "off":
            return cls({}, mode=mode)
        if path is None:
            raise Refused("TRUSTED_DOCUMENTS_MODE needs TRUSTED_DOCUMENTS, the file with the documents.")
        try:
            read = orjson.loads(path.read_bytes())
        except (OSError, orjson.JSONDecodeError) as error:
            reason = getattr(error, "strerror", None) or "it is no JSON"
            raise Refused(f"TRUSTED_DOCUMENTS: {path} cannot be read: {reason}.") from None
        if not isinstance(read, dict) or not all(isinstance(text, str) for text in read.values()):
            raise Refused(f"TRUSTED_DOCUMENTS: {path} is no object from hashes to documents.")
        manifest = {name.removeprefix(_PREFIX).lower(): text for name, text in read.items()}
        for name, text in manifest.items():
            if name != _digest(text):
                raise Refused(f"TRUSTED_DOCUMENTS: {name[:80]} is not the SHA-256 of its document.")
        return cls(manifest, mode=mode)

    def find(self, body: Mapping[str, Any], query: object) -> object:
        """Give the document that a request means: by its text, or by `documentId` or a persisted query's hash.

        Raises `PersistedQueryNotSupported` for a hash that is not in the manifest, and `Forbidden` for a document that
        is not in it where it must be.
        """
        if query is None and (named := _named(body)) is not None:
            text = self._manifest.get(named)
            if text is None:
                raise PersistedQueryNotSupported("PersistedQueryNotSupported")
            return text
        if self._required and (not isinstance(query, str) or _digest(query) not in self._manifest):
            raise Forbidden("Only documents that this service knows may be run here.", field="query")
        return query


def _named(body: Mapping[str, Any]) -> str | None:
    said = body.get("documentId")
    if said is None:
        persisted = (body.get("extensions") or {}).get("persistedQuery")
        if persisted is None:
            return None
        said = persisted.get("sha256Hash") if isinstance(persisted, dict) else None
        if said is None:
            raise PersistedQueryNotSupported("PersistedQueryNotSupported")
    if not isinstance(said, str):
        raise BadInput.at("document_id", "The hash of a document is a string.")
    return said.removeprefix(_PREFIX).lower()


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()
