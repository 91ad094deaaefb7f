"""What the old registry holds, moved into ours: people, agents, usage, notifications, ratings, in this order.

Each step looks at what is here already, so that it can be run again, also after it was killed: an account, an agent or
a rating that is here stays as it is, and usage counts by its difference from what was moved before.
"""

import asyncio
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, time, timedelta
from itertools import islice
from typing import Any, Final
from zoneinfo import ZoneInfo

from models import agents, ratings, users
from models.agents import Agent
from models.alerts import raised, rules
from models.errors import AgentHubError, Conflict, Refused
from models.moving import documents
from models.moving.documents import Document, Registered, Unfit
from models.ratings import Rating
from models.store import database
from models.store.commits import Commits
from models.store.database import Handle, Key, Session
from models.usage import snapshots
from models.usage.events import EARLIEST, ItemOutcome, UsageEvent
from models.usage.snapshots import Day, Snapshot, Snapshots

SOURCE: Final = "agenthub"
COLLECTIONS: Final = ("users", "agents", "agent_usage", "token_notifications", "agent_ratings")

_AGENTS_AT_ONCE: Final = 500
_SNAPSHOTS_AT_ONCE: Final = 20
_RATERS_AT_ONCE: Final = 8


@dataclass(slots=True)
class Moved:
    """What became of one collection's documents."""

    read: int = 0
    taken: int = 0
    here: int = 0
    refused: list[str] = field(default_factory=list)
    """A line for each that could not be taken: which, and why."""


@dataclass(slots=True)
class Move:
    """One move: `source` is only read; `dry` says what would be done and does nothing."""

    source: Handle
    zone: ZoneInfo
    dry: bool
    progress: Callable[[str, float], None]
    moved: dict[str, Moved] = field(default_factory=lambda: {name: Moved() for name in COLLECTIONS})
    _people: dict[str, Key] = field(default_factory=dict)
    _agents: dict[str, Key] = field(default_factory=dict)
    _registered: dict[Key, Registered] = field(default_factory=dict)
    _days: dict[Key, list[Day]] = field(default_factory=dict)

    async def run(self) -> Mapping[str, Moved]:
        """Move everything, and say what became of it. Raises `Refused` for a database that is not the old one."""
        names = await self.source.list_collection_names()
        if "migrations" in names:
            raise Refused("--from names a database of AgentHub itself, not the old registry's.")
        if not set(COLLECTIONS) & set(names):
            raise Refused(f"There is nothing to move in the database {self.source.name}. Is its name right?")
        await self._each("users", self._user)
        await self._move_agents()
        await self._each("agent_usage", self._day)
        await self._move_usage()
        await self._move_notifications()
        await self._move_ratings()
        return self.moved

    async def _each(self, name: str, take: Callable[[Document, Moved], Any]) -> None:
        """Read a collection, and list what cannot be taken."""
        rows = self.source[name]
        total = max(await rows.estimated_document_count(), 1)
        into = self.moved[name]
        async for row in rows.find({}).sort("_id", 1):
            into.read += 1
            try:
                await take(row, into)
            except Unfit as reason:
                into.refused.append(f"{row['_id']}: {reason}")
            except AgentHubError as error:
                into.refused.append(f"{row['_id']}: {error.message}")
            if into.read % 100 == 0:
                self.progress(name, into.read / total)
        self.progress(name, 1.0)

    # ---------------------------------------------------------------- people

    async def _user(self, row: Document, into: Moved) -> None:
        email, key = documents.email(row), documents.key(row)
        if email in self._people:
            self._people[str(row["_id"])] = self._people[email]
            raise Unfit(f"there is another account of {email}")
        here = await self._known(key, email)
        if here is None:
            read = documents.person(row)
            here = key if self.dry or await self._create(read, key) else await self._known(key, email)
            into.taken += 1
        else:
            into.here += 1
        if here is not None:
            self._people[str(row["_id"])] = self._people[email] = here

    @staticmethod
    async def _known(key: Key, email: str) -> Key | None:
        """Find an account that is here: moved before, under whatever address by now, or registered with this one."""
        return key if await users.find(key) else (await users.by_emails([email])).get(email)

    @staticmethod
    async def _create(read: documents.Person, key: Key) -> bool:
        now = read.created_at or datetime.now(UTC)
        try:
            await users.create(read.values, password_hash=read.password_hash, now=now, key=key)
        except Conflict:
            # Another move, or they themselves, have just made it.
            return False
        if read.last_seen_at:
            await users.seen(key, now=read.last_seen_at)
        return True

    # ---------------------------------------------------------------- agents

    async def _move_agents(self) -> None:
        found: dict[str, tuple[Document, Registered]] = {}

        async def take(row: Document, _: Moved) -> None:
            read = documents.agent(row)
            if read.values["name"] in found:
                raise Unfit(f"{read.values['name']!r}: there is another of this name")
            if read.owner and self._person(read.owner) is None:
                self.moved["agents"].refused.append(
                    f"{row['_id']}: taken without its owner {read.owner!r}, who was not moved"
                )
            found[read.values["name"]] = row, read

        await self._each("agents", take)
        rest = iter(found.items())
        while part := dict(islice(rest, _AGENTS_AT_ONCE)):
            keys, made = await self._register(part)
            into = self.moved["agents"]
            into.taken += made
            into.here += len(keys) - made
            into.refused += [f"{row['_id']}: deleted here since" for name, (row, _) in part.items() if name not in keys]
            for name, (key, name_here) in keys.items():
                row, read = part[name]
                self._agents[str(row["_id"])] = self._agents[name] = key
                self._registered[key] = replace(read, values={**read.values, "name": name_here})

    async def _register(
        self, part: Mapping[str, tuple[Document, Registered]]
    ) -> tuple[dict[str, tuple[Key, str]], int]:
        """Give key and name here by the old name, without those deleted here since; and how many are new."""
        keys = {name: documents.key(row) for name, (row, _) in part.items()}

        async def body(session: Session) -> tuple[dict[str, tuple[Key, str]], int]:
            # One that was moved before is known by its key, whatever it is called by now.
            source = database.collection(Agent)
            known = source.find({"_id": {"$in": list(keys.values())}}, {"name": 1, "deleted_at": 1}, session=session)
            moved = {row["_id"]: row async for row in known}
            named = await agents.by_names(list(part), session=session)
            here: dict[str, tuple[Key, str]] = {}
            rows = []
            for name, (_, read) in part.items():
                row = moved.get(keys[name]) or named.get(name)
                if row is None:
                    rows.append(self._row(read, key=keys[name]))
                    here[name] = keys[name], name
                elif row["deleted_at"] is None:
                    here[name] = row["_id"], row["name"]
            if rows and not self.dry:
                await source.insert_many(rows, ordered=False, session=session)
            return here, len(rows)

        return await database.transaction(Agent, body, retry_duplicates=True)

    def _row(self, read: Registered, *, key: Key) -> dict[str, Any]:
        values = dict(read.values)
        values["discipline"] = values["discipline"] or agents.by_name(values["name"])
        created = read.created_at or read.updated_at or datetime.now(UTC)
        owner = self._person(read.owner) if read.owner else None
        return agents.row(values, owner=owner, now=created, key=key) | {"updated_at": read.updated_at or created}

    # ---------------------------------------------------------------- usage

    async def _day(self, row: Document, _: Moved) -> None:
        read = documents.day(row)
        tomorrow = datetime.now(UTC).date() + timedelta(days=1)
        if not EARLIEST.date() <= read.day <= tomorrow:
            raise Unfit(f"{read.day} lies before {EARLIEST.date()} or ahead")
        self._days.setdefault(self._agent(row), []).append(read)

    async def _move_usage(self) -> None:
        into = self.moved["agent_usage"]
        used = {key: read for key, read in self._registered.items() if key in self._days or any(read.totals.values())}
        wanted = {key: self._snapshot(key, read) for key, read in used.items()}
        last = await snapshots.last_of(list(wanted), source=SOURCE)
        new = []
        for key, each in wanted.items():
            known = last.get(key)
            if known is not None and snapshots.says(known, each):
                into.here += len(self._days.get(key, ()))
            else:
                new.append((key, each if known is None else snapshots.after(known, each)))
        if self.dry:
            into.taken += sum(len(self._days.get(key, ())) for key, _ in new)
            return
        # History is no news: what it crosses was told of long ago, or never was.
        quiet = Snapshots(self.zone, alerting=False)
        async with Commits(UsageEvent) as commits:
            for start in range(0, len(new), _SNAPSHOTS_AT_ONCE):
                part = new[start : start + _SNAPSHOTS_AT_ONCE]
                report = snapshots.read([each for _, each in part], now=datetime.now(UTC))
                weight = snapshots.WEIGHT * len(part)
                outcomes = report.merged(await commits.submit(quiet, report, weight=weight))
                for (key, each), outcome in zip(part, outcomes, strict=True):
                    if outcome.outcome is ItemOutcome.ACCEPTED:
                        into.taken += len(self._days.get(key, ()))
                    elif outcome.outcome is ItemOutcome.DUPLICATE:
                        into.here += len(self._days.get(key, ()))
                    else:
                        into.refused.append(f"usage of {each.name!r}: {outcome.message}")
                self.progress("usage", (start + len(part)) / len(new))

    def _snapshot(self, key: Key, read: Registered) -> Snapshot:
        timeline = documents.added(self._days.get(key, []))
        last = datetime.combine(timeline[-1].day, time.max, UTC) if timeline else EARLIEST
        spoken = max(last, read.updated_at or last, read.created_at or last)
        totals: dict[str, Any] = dict(read.totals)
        if totals.get("total_tokens", 0) < totals.get("prompt_tokens", 0) + totals.get("completion_tokens", 0):
            totals.pop("total_tokens", None)
        return Snapshot(
            name=read.values["name"],
            source=SOURCE,
            # The end of a day may still be ahead.
            reported_at=max(EARLIEST, min(spoken, datetime.now(UTC))),
            timeline=timeline or None,
            **totals,
        )

    # ---------------------------------------------------------------- notifications

    async def _move_notifications(self) -> None:
        told: dict[Key, datetime] = {}

        async def take(row: Document, _: Moved) -> None:
            key, at = self._agent(row), documents.notified(row)
            told[key] = max(told.get(key, at), at)

        await self._each("token_notifications", take)
        into = self.moved["token_notifications"]
        rule = (await rules.by_keys([rules.DEFAULT_RULE])).get(rules.DEFAULT_RULE)
        if rule is None or not told:
            return
        new = 0 if self.dry else await raised.remember(rule, told)
        into.taken = len(told) if self.dry else new
        into.here = into.read - len(into.refused) - into.taken

    # ---------------------------------------------------------------- ratings

    async def _move_ratings(self) -> None:
        into = self.moved["agent_ratings"]
        newest: dict[tuple[Key, Key], documents.Rated] = {}

        async def take(row: Document, _: Moved) -> None:
            read = documents.rating(row)
            person = self._person(read.user)
            if person is None:
                raise Unfit(f"its rater {read.user!r} was not moved")
            pair = self._agent(row), person
            before = newest.get(pair)
            if before is not None:
                into.refused.append(
                    f"{row['_id']}: another rating by the same person of the same agent; the newer counts"
                )
            if before is None or (read.at and (before.at is None or read.at >= before.at)):
                newest[pair] = read

        await self._each("agent_ratings", take)
        given = database.collection(Rating).find({"agent": {"$in": list(self._registered)}}, {"agent": 1, "user": 1})
        here = {(row["agent"], row["user"]) async for row in given}
        into.here = len(here & newest.keys())
        by_agent: dict[Key, list[tuple[Key, documents.Rated]]] = {}
        for (agent, person), read in newest.items():
            if (agent, person) not in here:
                by_agent.setdefault(agent, []).append((person, read))
        places = asyncio.Semaphore(_RATERS_AT_ONCE)
        total = max(len(newest) - into.here, 1)

        async def rate(agent: Key, given: Sequence[tuple[Key, documents.Rated]]) -> None:
            async with places:
                for person, read in given:
                    if not self.dry:
                        now = read.at or datetime.now(UTC)
                        await ratings.rate(agent, by=person, stars=read.stars, comment=read.comment, now=now)
                    into.taken += 1
                    self.progress("agent_ratings", into.taken / total)

        await asyncio.gather(*(rate(agent, given) for agent, given in by_agent.items()))

    def _person(self, named: str) -> Key | None:
        return self._people.get(named) or self._people.get(users.as_stored(named))

    def _agent(self, row: Document) -> Key:
        named = documents.of(row)
        key = self._agents.get(named)
        if key is None:
            raise Unfit(f"its agent {named!r} was not moved")
        return key
