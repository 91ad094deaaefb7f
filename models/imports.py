"""Agents out of a sheet: each row creates one, changes one, or says why not; ratings and figures are never touched."""

import asyncio
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import islice
from typing import Any, Final

from models import agents, sheets, text, users
from models.agents import Agent, AgentFields, AgentStatus, AuditStatus, Discipline
from models.enums import DescribedEnum
from models.errors import AgentHubError, BadInput, Conflict, Forbidden, NotFound
from models.sheets import Line
from models.store import database
from models.store.database import InsertOne, Key, Row, Session, UpdateOne


class ImportOutcome(DescribedEnum):
    """What became of a row."""

    CREATED = "CREATED", "An agent was registered."
    UPDATED = "UPDATED", "An agent was changed."
    UNCHANGED = "UNCHANGED", "The agent was like this already."
    REJECTED = "REJECTED", "Nothing was done; `column` and `message` say why."


@dataclass(frozen=True, slots=True)
class Result:
    """What became of one row."""

    row: int
    name: str
    outcome: ImportOutcome
    error: AgentHubError | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Importer:
    """Who imports: `person` owns what they create; `only_owner` limits changes; `may_assign` others as owners."""

    person: Key | None
    only_owner: Key | None
    may_assign: bool


_AT_ONCE: Final = 500
_ENUMS: Final[Mapping[str, type[DescribedEnum]]] = {
    "discipline": Discipline,
    "status": AgentStatus,
    "audit_status": AuditStatus,
}
# An empty cell of these says nothing, since they cannot be empty.
_NEVER_EMPTY: Final = frozenset({"status", "audit_status"})
_EMPTY: Final[Mapping[str, Any]] = {"description": "", "tags": ()}


async def run(csv: str, importer: Importer, *, dry: bool, now: datetime) -> Sequence[Result]:
    """Import a sheet, 500 rows in a transaction, and say what became of each row; `dry` only says it.

    Rows are those of `sheets.read`. What is committed stays, should a later part fail; the same sheet may be sent
    again. Raises `BadInput` for a sheet that cannot be read, before anything is done.
    """
    lines = list(islice(sheets.read(csv), sheets.MOST_ROWS + 1))
    if len(lines) > sheets.MOST_ROWS:
        raise BadInput.at("csv", f"At most {sheets.MOST_ROWS:,} rows at once. Send the rest as another sheet.")
    owners = await users.by_emails([line.cells["owner"] for line in lines if line.cells.get("owner", "").strip()])
    seen: set[str] = set()
    found: list[Result] = []
    wanted: list[_Wanted] = []
    for place, line in enumerate(lines):
        if place % _AT_ONCE == 0:
            # Ten thousand rows are some 200 ms of work, in which nobody else would be answered.
            await asyncio.sleep(0)
        try:
            wanted.append(_read(line, owners, seen=seen))
        except AgentHubError as error:
            found.append(_rejected(line, error))
    rest = iter(wanted)
    while part := list(islice(rest, _AT_ONCE)):
        found += await _write(part, importer, dry=dry, now=now)
    return sorted(found, key=lambda each: each.row)


@dataclass(frozen=True, slots=True)
class _Wanted:
    """One row, its cells checked; `owner` is among the values where the sheet has that column."""

    line: Line
    values: Mapping[str, Any]

    @property
    def name(self) -> str:
        return str(self.values["name"])


async def _write(part: Sequence[_Wanted], importer: Importer, *, dry: bool, now: datetime) -> Sequence[Result]:
    async def body(session: Session) -> Sequence[Result]:
        known = await agents.by_names([each.name for each in part], session=session)
        results, writes = [], []
        for each in part:
            before = known.get(each.name)
            try:
                outcome, write = _change(each, before, importer, now=now)
            except AgentHubError as error:
                results.append(_rejected(each.line, error))
                continue
            results.append(Result(each.line.number, each.name, outcome))
            writes += [write] if write else []
        if writes and not dry:
            await database.collection(Agent).bulk_write(writes, ordered=False, session=session)
        return results

    # Of two who create an agent at once the second meets a duplicate, starts again and finds it.
    return await database.transaction(Agent, body, retry_duplicates=True)


# ---------------------------------------------------------------- rules


def _read(line: Line, owners: Mapping[str, Key], *, seen: set[str]) -> _Wanted:
    if line.surplus:
        raise BadInput.at("", "The row has more cells than the header.")
    given: dict[str, Any] = {"name": ""}
    for field, cell in line.cells.items():
        if field in _NEVER_EMPTY and not cell.strip():
            continue
        given[field] = _value(field, cell)
    owner = given.pop("owner", "")
    values = text.validate(AgentFields, given)
    if values["name"] in seen:
        raise Conflict("This name stands in the sheet already, further up.", field="name")
    seen.add(values["name"])
    if "owner" in line.cells:
        if owner and owner not in owners:
            raise NotFound("There is no account with this e-mail.", field="owner")
        values["owner"] = owners[owner] if owner else None
    return _Wanted(line, values)


def _value(field: str, cell: str) -> Any:  # noqa: ANN401  # as the field has it
    if not cell.strip() and field != "name":
        return list(_EMPTY[field]) if field == "tags" else _EMPTY.get(field)
    if field == "tags":
        try:
            return sheets.split(cell)
        except ValueError as error:
            raise BadInput.at("tags", str(error)) from None
    if field in _ENUMS:
        written = "_".join(cell.replace("_", " ").replace("-", " ").split()).upper()
        if written not in _ENUMS[field].__members__:
            raise BadInput.at(field, f"It is one of {', '.join(_ENUMS[field].__members__)}.")
        return written
    return users.as_stored(cell) if field == "owner" else cell


def _change(
    wanted: _Wanted, before: Row | None, importer: Importer, *, now: datetime
) -> tuple[ImportOutcome, InsertOne[dict[str, Any]] | UpdateOne | None]:
    values = dict(wanted.values)
    if before is None:
        owner = values.pop("owner", importer.person) if importer.may_assign else importer.person
        if importer.person is not None and values.get("discipline") is None:
            raise BadInput.at("discipline", "Say which discipline the agent works for.", code="REQUIRED")
        if not importer.may_assign and wanted.values.get("owner") not in {None, importer.person}:
            raise Forbidden("Only an admin registers agents for others.", field="owner")
        values.pop("owner", None)
        row = agents.row(text.validate(AgentFields, values, partial=False), owner=owner, now=now)
        return ImportOutcome.CREATED, InsertOne(row)
    if importer.only_owner is not None and before["owner"] != importer.only_owner:
        raise Forbidden("Only the owner of an agent, or an admin, may change it.", field="name")
    changed = {name: value for name, value in values.items() if before[name] != value}
    if "owner" in changed and not importer.may_assign:
        raise Forbidden("Only an admin gives an agent another owner.", field="owner")
    if not changed:
        return ImportOutcome.UNCHANGED, None
    after = {**changed, **agents.derived({**before, **changed}), "updated_at": now}
    return ImportOutcome.UPDATED, UpdateOne({"_id": before["_id"]}, {"$set": after})


def _rejected(line: Line, error: AgentHubError) -> Result:
    return Result(line.number, line.cells.get("name", ""), ImportOutcome.REJECTED, error)


def count(results: Iterable[Result], outcome: ImportOutcome) -> int:
    """Count the rows of which the same became."""
    return sum(each.outcome is outcome for each in results)
