"""Trusted documents: run by their hash, and alone where that is asked for."""

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest

from tests.client import Client
from tests.factories import Person
from tests.processes import Server
from tests.test_server import refusal

ME = "{ me { email } }"
OTHER = "{ __typename }"


def digest(text: str) -> str:
    """Hash a document as clients do."""
    return hashlib.sha256(text.encode()).hexdigest()


def persisted(text: str, **more: Any) -> dict[str, Any]:
    """Write a request as Apollo and urql do."""
    return {"extensions": {"persistedQuery": {"version": 1, "sha256Hash": digest(text)}}, **more}


@pytest.fixture
def manifest(tmp_path: Path) -> str:
    """Write a manifest with one document."""
    path = tmp_path / "documents.json"
    path.write_text(json.dumps({f"sha256:{digest(ME)}": ME}))
    return str(path)


@pytest.mark.parametrize("mode", ["prefer", "require"])
async def test_a_document_runs_by_its_hash(
    *, client: Client, user: Person, server: Server, mongodb_uri: str, manifest: str, mode: str
) -> None:
    known = {"TRUSTED_DOCUMENTS": manifest, "TRUSTED_DOCUMENTS_MODE": mode}
    async with Server(mongodb_uri, **server.settings | known) as another:
        there = Client(client.session, another.graphql, user.access_token)
        mine = {"data": {"me": {"email": user.email}}}

        assert (await there.post(persisted(ME))).body == mine
        assert (await there.post({"documentId": f"sha256:{digest(ME)}"})).body == mine
        assert (await there.post({"documentId": digest(ME).upper()})).body == mine
        assert (await there.get({"extensions": json.dumps(persisted(ME)["extensions"])})).body == mine
        assert (await there.get({"documentId": digest(ME)})).body == mine
        assert (await there.execute(ME)).body == mine
        assert (await there.post(persisted(ME, query=ME))).body == mine
        unknown = await there.post(persisted(OTHER))
        assert unknown.body["errors"][0]["message"] == "PersistedQueryNotSupported"
        other = await there.post(persisted(OTHER, query=OTHER))
        assert other.codes == ([] if mode == "prefer" else ["FORBIDDEN"])
        async with there.socket() as socket:
            await socket.initialise(user.access_token)
            await socket.send({"id": "1", "type": "subscribe", "payload": persisted(ME)})
            assert (await socket.receive())["payload"] == mine
            await socket.subscribe("2", OTHER)
            assert [(await socket.receive())["type"] for _ in range(2)] == [
                "complete",
                "next" if mode == "prefer" else "error",
            ]


@pytest.mark.parametrize("body", [{"documentId": 1}, {"extensions": {"persistedQuery": {"sha256Hash": 1}}}])
async def test_a_hash_that_is_none_is_refused(client: Client, body: dict[str, Any]) -> None:
    assert (await client.post(body)).codes == ["BAD_USER_INPUT"]


@pytest.mark.parametrize("body", [{"documentId": "x"}, persisted(ME), {"extensions": {"persistedQuery": {}}}])
async def test_without_a_manifest_clients_send_their_documents(client: Client, body: dict[str, Any]) -> None:
    assert (await client.post(body)).codes == ["PERSISTED_QUERY_NOT_SUPPORTED"]


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (None, "cannot be read"),
        ("{", "it is no JSON"),
        ("[]", "no object from hashes to documents"),
        ('{"x": 1}', "no object from hashes to documents"),
        ('{"abc": "{ me { id } }"}', "abc is not the SHA-256 of its document"),
    ],
)
async def test_a_manifest_that_is_none_is_refused_at_start(
    server: Server, tmp_path: Path, content: str | None, says: str
) -> None:
    path = tmp_path / "documents.json"
    if content is not None:
        path.write_text(content)
    settings = server.settings | {"TRUSTED_DOCUMENTS": str(path), "TRUSTED_DOCUMENTS_MODE": "require"}

    assert says in await refusal("serve", "--port", "0", **settings)


async def test_a_mode_needs_a_manifest(server: Server) -> None:
    assert "needs TRUSTED_DOCUMENTS" in await refusal(
        "serve", "--port", "0", **server.settings | {"TRUSTED_DOCUMENTS_MODE": "require"}
    )
