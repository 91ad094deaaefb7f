"""Agents as CSV: the list that a filter means, streamed page by page."""

import csv
import io
from collections.abc import AsyncIterator, Callable, Mapping
from typing import Any, Final

import structlog
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse
from starlette.routing import BaseRoute, Route

from auth.permissions import readers
from graph.language import nodes
from models import agents, sheets, users
from models.agents import AuditStatus, Discipline, Filter
from models.enums import DescribedEnum
from models.errors import BadInput
from models.store.pages import Page, Window
from server import credentials
from server.credentials import Door
from server.http import refusal

_PAGE: Final = 500
_LONGEST: Final = 1000
_TRUTHS: Final = {"true": True, "false": False}


def routes(door: Door) -> list[BaseRoute]:
    """`/agents.csv`, with the filters of the query `agents` as parameters of the same names."""

    async def export(request: Request) -> Response:
        request_id = credentials.request_id(request.headers)
        structlog.contextvars.bind_contextvars(request_id=request_id)
        headers = {"Cache-Control": "no-store", "X-Content-Type-Options": "nosniff", "X-Request-Id": request_id}
        try:
            readers.check(await door.admit(request))
            chosen = _filter(request)
            # Read before the answer begins, so that a database that is away is told as such.
            first = await _page(chosen, None)
        except Exception as error:  # noqa: BLE001  # whatever it is, the client gets an answer, and the log the rest
            response = refusal(error, request_id)
            response.headers.update(headers)
            return response
        headers["Content-Disposition"] = 'attachment; filename="agents.csv"'
        return StreamingResponse(_lines(chosen, first), media_type="text/csv; charset=utf-8", headers=headers)

    return [Route("/agents.csv", export)]


async def _page(chosen: Filter, before: Page | None) -> Page:
    after = before.order.position(before.rows[-1]) if before else None
    return await agents.page(chosen, order=agents.BY_NAME, window=Window(_PAGE, after))


async def _lines(chosen: Filter, first: Page) -> AsyncIterator[bytes]:
    # The mark has spreadsheets read it as UTF-8.
    yield b"\xef\xbb\xbf" + _written([sheets.header()])
    page = first
    while True:
        owners = await users.by_keys([row["owner"] for row in page.rows if row["owner"]])
        emails = {key: row["email"] for key, row in owners.items()}
        yield _written([sheets.cells(row, owner=emails.get(row["owner"])) for row in page.rows])
        if not page.has_next:
            return
        page = await _page(chosen, page)


def _written(rows: list[list[str]]) -> bytes:
    text = io.StringIO()
    csv.writer(text).writerows(rows)
    return text.getvalue().encode()


# ---------------------------------------------------------------- parameters


def _filter(request: Request) -> Filter:
    given: dict[str, list[str]] = {}
    for name, value in request.query_params.multi_items():
        if name not in _READ:
            raise BadInput.at(name[:100], f"There is no such filter. There are: {', '.join(_READ)}.")
        if len(value) > _LONGEST:
            raise BadInput.at(name, f"At most {_LONGEST} characters.")
        given.setdefault(name, []).append(value)
    read: dict[str, Any] = {}
    for name, values in given.items():
        field, look, is_list = _READ[name]
        if len(values) > 1 and not is_list:
            raise BadInput.at(name, "Once is enough.")
        found = [look(name, value) for value in values]
        read[field] = found if is_list else found[0]
    return Filter(**read)


def _text(_: str, value: str) -> str:
    return value


def _truth(name: str, value: str) -> bool:
    if value not in _TRUTHS:
        raise BadInput.at(name, "It is true or false.")
    return _TRUTHS[value]


def _person(name: str, value: str) -> object:
    return nodes.decode(value, "User", field=name)


def _one_of(enum: type[DescribedEnum]) -> Callable[[str, str], object]:
    def look(name: str, value: str) -> object:
        if value not in enum.__members__:
            raise BadInput.at(name, f"It is one of {', '.join(enum.__members__)}.")
        return enum[value]

    return look


_READ: Final[Mapping[str, tuple[str, Callable[[str, str], object], bool]]] = {
    "search": ("search", _text, False),
    "status": ("status", _one_of(agents.AgentStatus), True),
    "auditStatus": ("audit_status", _one_of(AuditStatus), False),
    "discipline": ("discipline", _one_of(Discipline), True),
    "project": ("project", _text, False),
    "tag": ("tag", _text, False),
    "owner": ("owner", _person, False),
    "unclaimed": ("unclaimed", _truth, False),
}
"""Each parameter: the filter it sets, how its value is read, and whether it may be given several times."""
