"""What one transaction does to some budgets and their reservations: read, changed by rule, written back once.

Each is written on the condition that it is still as it was read, so that limit, spent and held never part.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Annotated, Any, Final, Self

from pydantic import BaseModel, Field

from models import text
from models.budgets import kept
from models.budgets.accounts import MOST_TOKENS, NOTHING, Account, Crossing, counted
from models.budgets.kept import Budget, Reservation, Scope
from models.errors import AgentHubError, Conflict
from models.store import database
from models.store.database import InsertOne, Key, Outdated, Row, Session, UpdateOne

LEASE_S: Final = 300
"""How long a reservation is held when nothing is said: longer than nearly every call of a model takes."""
LONGEST_LEASE_S: Final = 3600


class RequestFields(BaseModel):
    """What callers say, whatever they ask for."""

    tokens: Annotated[int, Field(ge=1, le=MOST_TOKENS)]
    max_tokens: Annotated[int, Field(ge=1, le=MOST_TOKENS)]
    prompt_tokens: Annotated[int, Field(ge=0, le=MOST_TOKENS)]
    completion_tokens: Annotated[int, Field(ge=0, le=MOST_TOKENS)]
    lease_seconds: Annotated[int, Field(ge=1, le=LONGEST_LEASE_S)]
    idempotency_key: Annotated[str, text.Line(200)]


@dataclass(frozen=True, slots=True)
class Reserve:
    """Hold tokens before they are spent; the same key holds once."""

    scope: Scope
    key: str
    tokens: int
    lease: timedelta
    agent: Key | None = None

    @classmethod
    def of(cls, scope: Scope, *, tokens: int, key: str, lease_s: int, agent: Key | None) -> Self:
        """Check what is asked. Raises `BadInput`."""
        said = _checked(tokens=tokens, idempotency_key=key, lease_seconds=lease_s)
        return cls(
            scope, said["idempotency_key"], said["tokens"], timedelta(seconds=said["lease_seconds"]), agent=agent
        )


@dataclass(frozen=True, slots=True)
class Settle:
    """Say what was spent of a reservation, and give back the rest; nothing spent gives back all."""

    reservation: Key
    prompt_tokens: int
    completion_tokens: int

    @classmethod
    def of(cls, reservation: Key, *, prompt_tokens: int, completion_tokens: int) -> Self:
        """Check what is asked. Raises `BadInput`."""
        return cls(reservation, **_checked(prompt_tokens=prompt_tokens, completion_tokens=completion_tokens))


@dataclass(frozen=True, slots=True)
class Extend:
    """Hold what is reserved for longer, counted from now."""

    reservation: Key
    lease: timedelta

    @classmethod
    def of(cls, reservation: Key, *, lease_s: int) -> Self:
        """Check what is asked. Raises `BadInput`."""
        return cls(reservation, timedelta(seconds=_checked(lease_seconds=lease_s)["lease_seconds"]))


@dataclass(frozen=True, slots=True)
class Limit:
    """Set how much may be spent in all."""

    scope: Scope
    tokens: int

    @classmethod
    def of(cls, scope: Scope, *, tokens: int) -> Self:
        """Check what is asked. Raises `BadInput`."""
        return cls(scope, _checked(max_tokens=tokens)["max_tokens"])


@dataclass(frozen=True, slots=True)
class Spend:
    """What one usage event has spent: in the scope that it names, or of the reservation."""

    budget: str | None
    reservation: Key | None
    prompt_tokens: int
    completion_tokens: int
    agent: Key


Request = Reserve | Settle | Extend | Limit


@dataclass(frozen=True, slots=True)
class Done:
    """A budget after a commit, and the reservation that was asked for or about."""

    budget: Row
    reservation: Row | None = None

    @property
    def about(self) -> Row:
        """The reservation, where there is one by the nature of the request."""
        assert self.reservation is not None  # noqa: S101  # tells the type checker
        return self.reservation


class Ledger:
    """Some budgets and reservations as they stand in a transaction, and what it does to them."""

    def __init__(self, accounts: Mapping[str, Account], reservations: Mapping[Key, Row]) -> None:
        """Take what was read."""
        self.accounts = accounts
        self._reservations = {key: dict(row) for key, row in reservations.items()}
        self._new: set[Key] = set()
        self._changed: set[Key] = set()

    @classmethod
    async def read(cls, budgets: Iterable[str], reservations: Iterable[Key], *, session: Session) -> "Ledger":
        """Read what some requests are about; what there is not is left out."""
        keys = list(set(reservations))
        rows = database.collection(Reservation).find({"_id": {"$in": keys}}, session=session) if keys else None
        found = {row["_id"]: row async for row in rows} if rows else {}
        ids = {*budgets, *(row["budget"] for row in found.values())}
        pipeline: Sequence[Row] = [{"$match": {"_id": {"$in": sorted(ids)}}}, {"$set": {"now": "$$NOW"}}]
        read = await database.aggregate(Budget, pipeline, session=session)
        return cls({row["_id"]: Account(row, row.pop("now")) for row in read}, found)

    def follow(self, request: Request) -> tuple[Account, Row | None] | AgentHubError:
        """Do one thing, or say why not."""
        if isinstance(request, Reserve):
            return self._reserve(request)
        if isinstance(request, Limit):
            account = self.accounts.get(request.scope.id)
            if account is None:
                return kept.unknown(request.scope)
            account.limit_to(request.tokens)
            return account, None
        row = self._reservations.get(request.reservation)
        if row is None:
            return kept.unknown_reservation()
        account = self.accounts[row["budget"]]
        # Seen at this moment, should it be answered.
        row["now"] = account.now
        return (
            self._settle(request, row, account) if isinstance(request, Settle) else self._extend(request, row, account)
        )

    def spend(self, spend: Spend) -> None:
        """Count what an event says; of a budget that there is not, nothing is kept."""
        row = self._reservations.get(spend.reservation) if spend.reservation else None
        if row is None:
            if account := self.accounts.get(spend.budget or ""):
                account.spend(spend.prompt_tokens, spend.completion_tokens, agent=spend.agent)
            return
        said = {"prompt_tokens": spend.prompt_tokens, "completion_tokens": spend.completion_tokens}
        self._end(row, {"reported": _sum(row["reported"], said)}, agent=spend.agent)

    def amend(self, spent: Mapping[str, Mapping[str, int]], reported: Mapping[Key, Mapping[str, int]]) -> None:
        """Add what is missing to what budgets have spent, and to what events are known to say of reservations."""
        for key, missing in reported.items():
            row = self._reservations[key]
            row["reported"] = _sum(row["reported"], missing)
            self._changed.add(key)
        for budget, missing in spent.items():
            self.accounts[budget].spend(missing["prompt_tokens"], missing["completion_tokens"], agent=None)

    def _reserve(self, request: Reserve) -> tuple[Account, Row] | AgentHubError:
        account = self.accounts.get(request.scope.id)
        if account is None:
            return kept.unknown(request.scope)
        key = reservation_of(request)
        known = self._reservations.get(key)
        if known is not None:
            if known["tokens"] != request.tokens:
                return Conflict(
                    f"This key has reserved {known['tokens']} tokens. Give each call a key of its own.",
                    field="idempotency_key",
                )
            known["now"] = account.now
            return account, known
        refusal = account.refusal(request.tokens)
        if refusal is not None:
            return refusal
        expires_at = account.hold(key, request.tokens, lease=request.lease)
        row = {
            "_id": key,
            "budget": request.scope.id,
            "tokens": request.tokens,
            "agent": request.agent,
            "created_at": account.now,
            "expires_at": expires_at,
            "settled": None,
            "reported": None,
            "settled_at": None,
            "late": False,
            "now": account.now,
        }
        self._reservations[key] = row
        self._new.add(key)
        return account, row

    def _settle(self, request: Settle, row: dict[str, Any], account: Account) -> tuple[Account, Row] | AgentHubError:
        said = {"prompt_tokens": request.prompt_tokens, "completion_tokens": request.completion_tokens}
        if row["settled"] is None:
            self._end(row, {"settled": said}, agent=row["agent"])
        elif row["settled"] != said:
            first = row["settled"]
            return Conflict(
                f"It was settled with {first['prompt_tokens']} prompt and {first['completion_tokens']} completion "
                "tokens before, and that counts.",
                field="reservation",
            )
        return account, row

    def _extend(self, request: Extend, row: dict[str, Any], account: Account) -> tuple[Account, Row] | AgentHubError:
        expires_at = account.extend(request.reservation, lease=request.lease)
        if expires_at is None:
            return Conflict(
                "It is not open any more: what it held has been given back. Reserve anew.", field="reservation"
            )
        row["expires_at"] = expires_at
        self._changed.add(row["_id"])
        return account, row

    def _end(self, row: dict[str, Any], said: Mapping[str, Any], *, agent: Key | None) -> None:
        """Count what is said of a reservation, beyond what was counted for it before; the first word ends its hold."""
        account = self.accounts[row["budget"]]
        if row["settled_at"] is None:
            row["late"] = not account.release(row["_id"], row["tokens"])
            row["settled_at"] = account.now
        prompt, completion = counted(row)
        row.update(said)
        prompt_now, completion_now = counted(row)
        account.spend(prompt_now - prompt, completion_now - completion, agent=agent)
        self._changed.add(row["_id"])

    async def store(self, *, session: Session) -> tuple[list[Crossing], list[Scope]]:
        """Write what has changed; gives what budgets have come to, and which have tokens again."""
        crossings: list[Crossing] = []
        reopened: list[Scope] = []
        writes = []
        for key in sorted(key for key, account in self.accounts.items() if account.is_changed):
            row = self.accounts[key].row
            reached, is_open_again = self.accounts[key].finish()
            crossings += reached
            reopened += [Scope.of(row)] if is_open_again else []
            change = {"$set": {name: row[name] for name in _CHANGING}, "$inc": {"revision": 1}}
            writes.append(UpdateOne({"_id": key, "revision": row["revision"]}, change))
        if writes:
            # Budgets first: what another process is changing too shows here, before work is done.
            done = await database.collection(Budget).bulk_write(writes, ordered=False, session=session)
            if done.matched_count != len(writes):
                raise Outdated
        rows = {key: {name: self._reservations[key][name] for name in _KEPT} for key in self._new | self._changed}
        stored = [
            InsertOne({"_id": key, **row}) if key in self._new else UpdateOne({"_id": key}, {"$set": row})
            for key, row in sorted(rows.items())
        ]
        if stored:
            await database.collection(Reservation).bulk_write(stored, ordered=False, session=session)
        return crossings, reopened


_CHANGING = (
    "limit", "prompt_tokens", "completion_tokens", "percent", "holds", "unsettled", "unsettled_tokens", "settled_late",
    "told", "agent",
)  # fmt: skip
_KEPT = tuple(name for name in Reservation.model_fields if name not in {"id", "revision_id"})


def _sum(before: Mapping[str, int] | None, more: Mapping[str, int]) -> dict[str, int]:
    before = before or NOTHING
    return {name: before[name] + more[name] for name in NOTHING}


def _checked(**said: object) -> dict[str, Any]:
    return text.validate(RequestFields, said)


def reservation_of(request: Reserve | Settle | Extend) -> Key:
    """Give the key of the reservation that a request makes or is about."""
    return kept.reservation_key(request.scope, request.key) if isinstance(request, Reserve) else request.reservation
