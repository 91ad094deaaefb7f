"""The driver alone (PyMongo's async client): the commands that the service sends, and nothing around them."""

import asyncio
import itertools
import time
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, Self

from bson import ObjectId
from pymongo import AsyncMongoClient, UpdateOne
from pymongo.asynchronous.client_session import AsyncClientSession
from pymongo.read_concern import ReadConcern
from pymongo.write_concern import WriteConcern

from bench import queries
from models.usage import days

Row = dict[str, Any]
Work = Callable[[], Awaitable[object]]

_MAJORITY = WriteConcern(w="majority", j=True)
_ALIVE = {"deleted_at": {"$type": "null"}}
_LISTED = (
    "name", "description", "project", "discipline", "status", "audit_status", "userbase", "department",
    "contact_person", "created_at", "updated_at", "tags",
)  # fmt: skip
_SHOWN = ("messages", "prompt_tokens", "completion_tokens", "unsplit_tokens", "cost_nanodollars")


class Driver:
    """An async context manager; `run` does one kind of work a number of times."""

    def __init__(self, uri: str, name: str) -> None:
        self._client: AsyncMongoClient[Row] = AsyncMongoClient(uri, tz_aware=True, w="majority", journal=True)
        self._database = self._client.get_database(name, write_concern=_MAJORITY)
        self._numbers = itertools.count()
        self._key_hash = ""

    async def __aenter__(self) -> Self:
        key = await self._database.api_keys.find_one({})
        assert key is not None
        self._key_hash = key["hash"]
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._client.close()

    async def run(self, name: str, *, times: int, callers: int) -> Mapping[str, float]:
        """Do it `times` times, `callers` at once; gives `per_second` and `cpu_ms` of this process for each time.

        `collect` merges as many batches into one transaction as there are callers, which is the best that group
        commit can do. What is written is made before the clock starts.
        """
        size = 1
        if name == "collect":
            size = callers
            work = [await self._counted(callers) for _ in range(max(1, times // callers))]
            callers = 1
        elif name == "insert":
            work = [self._inserted(self._rows([ObjectId()] * queries.REPORTED_AGENTS)) for _ in range(times)]
        else:
            reads: Mapping[str, Work] = {
                "list": self._list,
                "nested": self._nested,
                "nested_packed": self._nested_packed,
                "single": self._single,
                "fleet": self._fleet,
            }
            work = [reads[name]] * times
        waiting = iter(work)
        started, cpu = time.perf_counter(), time.process_time()
        async with asyncio.TaskGroup() as tasks:
            for _ in range(callers):
                tasks.create_task(_drain(waiting))
        done = len(work) * size
        return {
            "per_second": done / (time.perf_counter() - started),
            "cpu_ms": (time.process_time() - cpu) * 1000 / done,
        }

    # ------------------------------------------------------------ reads

    async def _sign_in(self) -> None:
        now = datetime.now(UTC)
        pipeline: list[Row] = [
            {
                "$match": {
                    "hash": self._key_hash,
                    "revoked_at": None,
                    "$or": [{"expires_at": None}, {"expires_at": {"$gt": now}}],
                }
            },
            {"$lookup": {"from": "users", "localField": "owner", "foreignField": "_id", "as": "person"}},
            {"$unwind": "$person"},
            {"$match": {"person.active": True}},
            {"$project": {"scopes": 1, "expires_at": 1, "last_used_at": 1}},
        ]
        await (await self._database.api_keys.aggregate(pipeline)).to_list(1)

    async def _agents(self, fields: Mapping[str, int]) -> list[Row]:
        found = self._database.agents.find(_ALIVE, fields, hint="by name_folded")
        return await found.sort([("name_folded", 1), ("_id", 1)]).limit(queries.LISTED + 1).to_list()

    async def _months(self, agents: Sequence[ObjectId], back: int, fields: Mapping[str, int]) -> list[Row]:
        today = datetime.now(UTC).date()
        periods = days.months(today - timedelta(days=back - 1), today)
        where = {"period": {"$in": periods}, "agent": {"$in": list(agents)}}
        return await self._database.usage_months.find(where, fields).to_list()

    async def _list(self) -> None:
        await self._sign_in()
        await self._agents({"words": 0})

    async def _nested(self) -> None:
        await self._sign_in()
        keys = [row["_id"] for row in (await self._agents({"words": 0}))[: queries.LISTED]]
        await asyncio.gather(self._months(keys, 30, {"_id": 0}), *(self._newest(key) for key in keys))

    async def _newest(self, agent: ObjectId) -> None:
        found = self._database.ratings.find({"agent": agent}).sort([("created_at", -1), ("_id", -1)])
        await found.limit(queries.RATINGS_EACH + 1).to_list()

    async def _nested_packed(self) -> None:
        await self._sign_in()
        keys = [row["_id"] for row in (await self._agents(dict.fromkeys(_LISTED, 1)))[: queries.LISTED]]
        newest = {
            "n": queries.RATINGS_EACH + 1,
            "sortBy": {"created_at": -1, "_id": -1},
            "output": ["$stars", "$comment", "$created_at", "$_id"],
        }
        pipeline: list[Row] = [
            {"$match": {"agent": {"$in": keys}}},
            {"$group": {"_id": "$agent", "newest": {"$topN": newest}}},
        ]
        await self._months(keys, 30, {"_id": 0, "agent": 1, "period": 1, **dict.fromkeys(_SHOWN, 1)})
        await (await self._database.ratings.aggregate(pipeline)).to_list()

    async def _single(self) -> None:
        await self._sign_in()
        row = await self._database.agents.find_one({"name": queries.agent_name(0), "deleted_at": None})
        assert row is not None
        await self._months([row["_id"]], 90, {"_id": 0})

    async def _fleet(self) -> None:
        await self._sign_in()
        keys = [row["_id"] for row in await self._database.agents.find(_ALIVE, {"_id": 1}).to_list()]
        await self._months(keys, 30, {"_id": 0})

    # ------------------------------------------------------------ writes

    def _rows(self, agents: Sequence[ObjectId]) -> list[Row]:
        batch, now, commit = next(self._numbers), datetime.now(UTC), ObjectId()
        return [
            {
                "_id": f"floor {id(self)}\x1f{batch}-{number}",
                "agent": agents[number % len(agents)],
                "at": now,
                "model": queries.MODEL,
                "prompt_tokens": 900 + number,
                "completion_tokens": 200 + number,
                "messages": 1,
                "content": b"0123456789abcdef",
                "commit": commit,
                "cached_tokens": 300,
                "latency_ms": 1200 + number,
                "cost_nanodollars": 4_200_000,
            }
            for number in range(queries.EVENTS_PER_BATCH)
        ]

    def _inserted(self, rows: list[Row]) -> Work:
        async def insert() -> None:
            await self._database.usage_events.insert_many(rows, ordered=False)

        return insert

    async def _counted(self, batches: int) -> Work:
        names = [queries.agent_name(number) for number in range(queries.REPORTED_AGENTS)]
        keys = [row["_id"] for row in await self._database.agents.find({"name": {"$in": names}}, {"_id": 1}).to_list()]
        rows = [row for _ in range(batches) for row in self._rows(keys)]
        sums = {
            "messages": 5 * batches, "requests": 5 * batches, "prompt_tokens": 4700 * batches,
            "completion_tokens": 1200 * batches, "cached_tokens": 1500 * batches, "latency_ms": 6000 * batches,
            "cost_nanodollars": 21_000_000 * batches, "timed_events": 5 * batches,
        }  # fmt: skip
        now = rows[0]["at"]
        totals = [UpdateOne({"_id": key}, _change(sums, "usage.{}", used="usage.{}", at=now)) for key in keys]
        months, hours = (
            [
                UpdateOne(
                    {"period": period, "agent": key, "model": queries.MODEL},
                    _change(sums, "{}." + cell, used=used, at=now),
                    upsert=True,
                )
                for key in keys
            ]
            for period, cell, used in (
                (now.year * 100 + now.month, f"{now.day:02d}", "{}." + f"{now.day:02d}"),
                ((now.year * 100 + now.month) * 100 + now.day, f"{now.hour:02d}", ""),
            )
        )
        store = self._database

        async def body(session: AsyncClientSession) -> None:
            known = {"_id": {"$in": [row["_id"] for row in rows]}}
            await store.usage_events.find(known, {"content": 1, "commit": 1}, session=session).to_list()
            wanted = {"name": {"$in": names}, "deleted_at": None}
            await store.agents.find(wanted, {"name": 1}, session=session).to_list()
            await store.agents.bulk_write(totals, ordered=False, session=session)
            await store.usage_months.bulk_write(months, ordered=False, session=session)
            await store.usage_hours.bulk_write(hours, ordered=False, session=session)
            await store.alert_rules.find({"enabled": True}, session=session).sort("_id", 1).to_list()
            shown = {"discipline": 1, "project": 1, "usage": 1, "now": "$$NOW"}
            pipeline: list[Row] = [{"$match": {"_id": {"$in": keys}}}, {"$project": shown}]
            await (await store.agents.aggregate(pipeline, session=session)).to_list()
            await store.usage_events.insert_many(rows, ordered=False, session=session)

        async def commit() -> None:
            for _ in range(batches):
                await self._sign_in()
            async with self._client.start_session() as session:
                await session.with_transaction(
                    body, read_concern=ReadConcern("snapshot"), write_concern=_MAJORITY, max_commit_time_ms=5000
                )

        return commit


def _change(sums: Mapping[str, int], path: str, *, used: str, at: datetime) -> Row:
    change: Row = {"$inc": {path.format(name): value for name, value in sums.items()}}
    if used:
        change |= {"$min": {used.format("first_used_at"): at}, "$max": {used.format("last_used_at"): at}}
    return change


async def _drain(waiting: Iterator[Work]) -> None:
    for work in waiting:
        await work()
