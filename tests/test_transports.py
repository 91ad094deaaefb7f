"""GraphQL over HTTP and server-sent events: media types, methods, status codes, and what no body may do."""

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any
from urllib.parse import urlsplit

import pytest
from yarl import URL

from tests import factories
from tests.client import Client, Reply
from tests.factories import Person
from tests.test_agents import create

NEW = "application/graphql-response+json"
OLD = "application/json"
TYPENAME = "{ __typename }"
LOGIN = {
    "query": factories.LOGIN,
    "variables": {"input": {"email": "user@example.com", "password": factories.PASSWORD}},
}


def media_type(reply: Reply) -> str:
    return reply.headers["Content-Type"]


# ---------------------------------------------------------------- media types


@pytest.mark.parametrize(
    ("accept", "expected"),
    [
        ("", OLD),
        ("*/*", OLD),
        ("application/*", OLD),
        (OLD, OLD),
        (NEW, NEW),
        (f"{OLD}, {NEW}", NEW),
        (f"{NEW};q=0.5, {OLD}", OLD),
        (f"{NEW};q=0, */*", OLD),
        (f"text/html, {NEW};q=0.1", NEW),
        # What urql sends with every request.
        (f"{NEW}, application/graphql+json, {OLD}, text/event-stream, multipart/mixed", NEW),
        (f"text/event-stream;q=0.5, {OLD}", OLD),
        ("text/event-stream", "text/event-stream"),
        (f"text/event-stream, {OLD};q=0.9", "text/event-stream"),
    ],
)
async def test_the_weightiest_type_that_is_served_is_answered(client: Client, accept: str, expected: str) -> None:
    reply = await client.post({"query": TYPENAME}, Accept=accept)

    assert reply.status == 200
    assert media_type(reply) == f"{expected}; charset=utf-8"
    assert "Accept" in reply.headers["Vary"]


@pytest.mark.parametrize("accept", ["image/png", "application/json;q=0", "text/*;q=0", "nonsense"])
async def test_a_client_that_takes_none_of_our_types_is_told(client: Client, accept: str) -> None:
    reply = await client.post({"query": TYPENAME}, Accept=accept)

    assert reply.status == 406
    assert reply.codes == ["BAD_USER_INPUT"]


@pytest.mark.parametrize(
    ("accept", "status"), [(OLD, 200), (NEW, 400)], ids=["the old type says 200", "the new type says 400"]
)
@pytest.mark.parametrize(
    ("request_", "code"),
    [
        ({"query": "{"}, "GRAPHQL_PARSE_FAILED"),
        ({"query": "{ nothingOfThatName }"}, "GRAPHQL_VALIDATION_FAILED"),
        (
            {"query": "query ($skip: Boolean!) { __typename @skip(if: $skip) }", "variables": {"skip": "perhaps"}},
            "BAD_USER_INPUT",
        ),
        ({"query": "query A { __typename } query B { __typename }"}, "BAD_USER_INPUT"),
        ({"query": "query A { __typename }", "operationName": "B"}, "BAD_USER_INPUT"),
    ],
)
async def test_a_request_that_cannot_run_has_errors_and_no_data(
    client: Client, *, accept: str, status: int, request_: dict[str, Any], code: str
) -> None:
    reply = await client.post(request_, Accept=accept)

    assert reply.status == status
    assert "data" not in reply.body
    assert reply.codes == [code]


async def test_the_named_operation_runs(client: Client) -> None:
    document = "query A { a: __typename } query B { b: __typename }"

    reply = await client.execute(document, operation_name="B")

    assert reply.body == {"data": {"b": "Query"}}


async def test_answers_are_not_kept_and_not_guessed_at(client: Client) -> None:
    reply = await client.execute(TYPENAME)

    assert reply.headers["Cache-Control"] == "no-store"
    assert reply.headers["X-Content-Type-Options"] == "nosniff"


# ---------------------------------------------------------------- methods and sizes


@pytest.mark.parametrize("method", ["PUT", "DELETE", "PATCH", "OPTIONS"])
async def test_other_methods_are_refused(client: Client, method: str) -> None:
    reply = await client.send(method, content=b"")

    assert reply.status == 405
    assert reply.headers["Allow"] == "GET, HEAD, POST"
    assert reply.codes == ["BAD_USER_INPUT"]


async def test_a_query_may_stand_in_the_url(client: Client) -> None:
    document = "query ($skip: Boolean!) { __typename @skip(if: $skip) }"

    reply = await client.get({"query": document, "variables": json.dumps({"skip": False})})

    assert reply.status == 200
    assert reply.body == {"data": {"__typename": "Query"}}


@pytest.mark.parametrize("document", ["mutation { __typename }", "query A { __typename } mutation B { __typename }"])
async def test_a_mutation_in_the_url_is_refused(client: Client, document: str) -> None:
    reply = await client.get({"query": document, "operationName": "B" if "B" in document else ""})

    assert reply.status == 405
    assert reply.headers["Allow"] == "POST"


@pytest.mark.parametrize(
    "parameters",
    ["", "query=%ff", "query={__typename}&variables={", "query={__typename}&variables=[]", "&".join(["a=1"] * 30)],
)
async def test_a_broken_url_is_a_bad_request(client: Client, parameters: str) -> None:
    async with client.session.get(URL(f"{client.url}?{parameters}", encoded=True)) as response:
        body = await response.json()

    assert response.status == 400
    assert [error["extensions"]["code"] for error in body["errors"]] == ["BAD_USER_INPUT"]


async def test_a_url_too_long_is_refused(client: Client) -> None:
    reply = await client.get({"query": f"{TYPENAME}{' ' * 20_000}".replace(" ", "_")})

    assert reply.status == 414


async def test_a_subscription_by_plain_post_is_refused(client: Client) -> None:
    reply = await client.execute("subscription { thresholdAlerts { __typename } }")

    assert reply.status == 400
    assert reply.codes == ["BAD_USER_INPUT"]
    assert "graphql-transport-ws" in reply.body["errors"][0]["message"]


@pytest.mark.parametrize(
    "content_type",
    [
        "",
        "text/plain",
        "text/plain;application/json",
        "application/x-www-form-urlencoded",
        "multipart/form-data; boundary=x",
        "application/graphql",
        "application/json; charset=latin-1",
    ],
)
async def test_only_json_is_read(client: Client, content_type: str) -> None:
    reply = await client.post({"query": TYPENAME}, Content_Type=content_type)

    assert reply.status == 415
    assert reply.codes == ["BAD_USER_INPUT"]


@pytest.mark.parametrize("content_type", ["application/json;charset=UTF-8", 'Application/JSON; charset="utf-8"'])
async def test_json_in_utf8_is_read_however_it_is_spelt(client: Client, content_type: str) -> None:
    reply = await client.post({"query": TYPENAME}, Content_Type=content_type)

    assert reply.body == {"data": {"__typename": "Query"}}


async def test_a_compressed_body_is_refused(client: Client) -> None:
    reply = await client.post(b"\x1f\x8b", Content_Encoding="gzip")

    assert reply.status == 415


@pytest.mark.parametrize("chunked", [False, True])
async def test_a_body_too_large_is_refused(client: Client, *, chunked: bool) -> None:
    async def parts() -> AsyncIterator[bytes]:
        for _ in range(50):
            yield b" " * 100_000

    content = parts() if chunked else b" " * 5_000_000
    reply = await client.send("POST", content=content, headers={"Content-Type": OLD})

    assert reply.status == 413
    assert reply.codes == ["BAD_USER_INPUT"]


# ---------------------------------------------------------------- bodies


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b'"a string"',
        b"null",
        b"1",
        b"true",
        b"\xff\xfe",
        b'{"query": "\xff"}',
        b"[" * 20_000,
        b'{"a":' * 20_000,
        b"1" * 5_000,
        b'{"query": "{ __typename }", "variables": {"n": ' + b"1" * 5_000 + b"}}",
        b'{"query": "{ __typename }", "variables": {"n": NaN}}',
        b'{"query": "{ __typename }", "variables": {"n": 1e400}}',
        b'{"query": "{ __typename }", "variables": {"text": "\\ud800"}}',
        b'{"query": "{ __typename } # \\udfff"}',
        b"{}",
        b'{"query": null}',
        b'{"query": ""}',
        b'{"query": 1}',
        b'{"query": "{ __typename }", "variables": []}',
        b'{"query": "{ __typename }", "variables": "{}"}',
        b'{"query": "{ __typename }", "operationName": 1}',
        b'{"query": "{ __typename }", "extensions": []}',
    ],
    ids=lambda body: body[:30].decode(errors="replace"),
)
@pytest.mark.parametrize("accept", [OLD, NEW])
async def test_no_body_does_worse_than_a_bad_request(client: Client, body: bytes, accept: str) -> None:
    reply = await client.post(body, Accept=accept)

    assert reply.status == 400
    assert reply.codes == ["BAD_USER_INPUT"]
    assert "data" not in reply.body


async def test_a_batch_is_refused(client: Client) -> None:
    reply = await client.post([{"query": TYPENAME}] * 2)

    assert reply.status == 400
    assert reply.codes == ["BAD_USER_INPUT"]
    assert "one request at a time" in reply.body["errors"][0]["message"]


async def test_a_persisted_query_is_asked_for_in_full(client: Client) -> None:
    extensions = {"persistedQuery": {"version": 1, "sha256Hash": "0" * 64}}

    reply = await client.post({"extensions": extensions})

    assert reply.codes == ["PERSISTED_QUERY_NOT_SUPPORTED"]
    assert reply.body["errors"][0]["message"] == "PersistedQueryNotSupported"
    assert (await client.post({"query": TYPENAME, "extensions": extensions})).body == {"data": {"__typename": "Query"}}


@pytest.mark.parametrize(
    "document",
    ["{ a " * 600 + "}" * 600, f"{{ {'a ' * 3000} }}", "query " + "@a " * 500 + TYPENAME, "{ a(b: " + "[" * 900],
)
async def test_a_monstrous_document_is_refused_with_a_code(client: Client, document: str) -> None:
    reply = await client.post({"query": document}, Accept=NEW)

    assert reply.status == 400
    assert set(reply.codes) <= {"GRAPHQL_PARSE_FAILED", "GRAPHQL_VALIDATION_FAILED", "QUERY_TOO_COMPLEX"}
    assert len(reply.codes) <= 21


# ---------------------------------------------------------------- request ids


async def test_a_request_id_is_echoed(client: Client) -> None:
    reply = await client.with_headers(X_Request_Id="abc-123").execute(TYPENAME)

    assert reply.headers["X-Request-Id"] == "abc-123"


@pytest.mark.parametrize("given", ["", "a b", "x" * 200, "<script>"])
async def test_a_request_id_that_is_none_is_replaced(client: Client, given: str) -> None:
    reply = await client.with_headers(X_Request_Id=given).execute(TYPENAME)

    assert reply.headers["X-Request-Id"] not in {"", given}


# ---------------------------------------------------------------- credentials


async def test_a_bad_token_refuses_the_whole_request(client: Client) -> None:
    reply = await client.with_token("nonsense").execute(TYPENAME)

    assert reply.status == 401
    assert reply.codes == ["UNAUTHENTICATED"]
    assert reply.headers["WWW-Authenticate"] == "Bearer"
    assert "data" not in reply.body


@pytest.mark.parametrize(
    ("scheme", "name", "secure"), [("http", "agenthub", False), ("https", "__Host-agenthub", True)]
)
async def test_signing_in_sets_a_cookie_that_scripts_cannot_read(
    client: Client, user: Person, *, scheme: str, name: str, secure: bool
) -> None:
    reply = await client.post(LOGIN, X_Forwarded_Proto=scheme)

    cookie = reply.headers["Set-Cookie"]
    assert cookie.startswith(f"{name}=")
    assert {"HttpOnly", "Path=/", "SameSite=lax"} <= {part.strip() for part in cookie.split(";")}
    assert ("Secure" in cookie) is secure
    assert "Domain" not in cookie


async def test_the_cookie_signs_in_until_signing_out_ends_it(client: Client, user: Person) -> None:
    cookie = (await client.post(LOGIN)).headers["Set-Cookie"].partition(";")[0]
    browser = client.with_headers(Cookie=cookie)
    assert (await browser.query("{ me { email } }")) == {"me": {"email": "user@example.com"}}

    reply = await browser.execute("mutation { logout { __typename } }")

    assert "Max-Age=0" in reply.headers["Set-Cookie"]
    later = await browser.execute("{ me { email } }")
    assert later.body["data"] == {"me": None}
    assert "Max-Age=0" in later.headers["Set-Cookie"]


@pytest.mark.parametrize("origin", ["https://evil.example", "null", "http://127.0.0.1:1", "nonsense"])
async def test_the_cookie_does_not_count_from_a_foreign_page(client: Client, user: Person, origin: str) -> None:
    browser = client.with_headers(Cookie=f"agenthub={user.access_token}", Origin=origin)

    reply = await browser.execute(TYPENAME)

    assert reply.status == 403
    assert reply.codes == ["FORBIDDEN"]
    # A token that a program shows on purpose is another matter.
    assert (await user.client.with_headers(Origin=origin).execute(TYPENAME)).status == 200


async def test_the_cookie_counts_from_our_own_page(client: Client, user: Person) -> None:
    own = client.url.removesuffix("/graphql")

    browser = client.with_headers(Cookie=f"agenthub={user.access_token}", Origin=own)

    assert await browser.query("{ me { email } }") == {"me": {"email": user.email}}


# ---------------------------------------------------------------- server-sent events


async def test_a_query_comes_as_events(client: Client) -> None:
    async with client.stream(TYPENAME) as stream:
        events = [event async for event in stream.events()]

    assert events == [("next", {"data": {"__typename": "Query"}}), ("complete", None)]


async def test_events_end_in_line_feeds_alone(client: Client) -> None:
    reply = await client.post({"query": TYPENAME}, Accept="text/event-stream")

    assert b"\r" not in reply.content
    assert reply.content.endswith(b"\n\n")


async def test_a_request_error_comes_as_an_event(client: Client) -> None:
    async with client.stream("{ nothing }") as stream:
        (name, payload), end = [event async for event in stream.events()]

    assert name == "next"
    assert payload["errors"][0]["extensions"]["code"] == "GRAPHQL_VALIDATION_FAILED"
    assert end == ("complete", None)


async def test_a_subscription_that_is_not_allowed_ends_at_once(client: Client) -> None:
    async with client.stream("subscription { thresholdAlerts { __typename } }") as stream:
        (name, payload), end = [event async for event in stream.events()]

    assert name == "next"
    assert [error["extensions"]["code"] for error in payload["errors"]] == ["UNAUTHENTICATED"]
    assert end == ("complete", None)


# ---------------------------------------------------------------- slow and half-open clients


async def test_slow_and_half_open_clients_hold_up_nobody_and_are_cut(client: Client, user: Person) -> None:
    where = urlsplit(client.url)
    lines = ["POST /graphql HTTP/1.1", f"Host: {where.netloc}", "Content-Type: application/json", "Content-Length: 100"]
    head = "\r\n".join([*lines, "", ""])
    slow = [await asyncio.open_connection(where.hostname, where.port) for _ in range(20)]
    for _, writer in slow:
        writer.write(head.encode() + b"{")
    half_open = [await asyncio.open_connection(where.hostname, where.port) for _ in range(20)]
    for _, writer in half_open[10:]:
        writer.write(head.encode()[:-4])

    replies = await asyncio.gather(*(user.client.execute(TYPENAME) for _ in range(20)))

    assert {reply.status for reply in replies} == {200}
    async with asyncio.timeout(30):
        answers = [await reader.read() for reader, _ in slow]
    assert {answer.split(b"\r\n", 1)[0] for answer in answers} == {b"HTTP/1.1 408 Request Timeout"}
    assert b"BAD_USER_INPUT" in answers[0]
    async with asyncio.timeout(30):
        assert [await reader.read() for reader, _ in half_open] == [b""] * 20
    for _, writer in (*slow, *half_open):
        writer.close()


@pytest.mark.parametrize(
    ("document", "variables"),
    [
        ("query ($a: Boolean = true) { agents { nodes { name @include(if: $a) } } }", {"a": None}),
        ("query ($d: Int = 3) { node(id: $i) { id } }", {}),
        ('query ($i: ID = "x") { node(id: $i) { id } }', {"i": None}),
    ],
)
async def test_a_null_where_none_may_be_is_the_clients_fault(
    user: Person, document: str, variables: dict[str, Any]
) -> None:
    await create(user.client, "Scout")

    reply = await user.client.execute(document, variables)

    assert set(reply.codes) <= {"BAD_USER_INPUT", "GRAPHQL_VALIDATION_FAILED"}
    assert reply.codes
