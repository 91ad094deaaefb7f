"""What runs come to: the dashboard, timelines, an agent's metrics, and all of it counted anew."""

import asyncio
from datetime import UTC, datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

import pytest

from models.runs import dashboard, figures
from models.runs.dashboard import DashboardFigure
from models.runs.figures import RunFigures, RunHour
from models.runs.rebuild import rebuild
from models.store import database
from models.store.database import Database
from tests.client import Client, GraphQLErrors
from tests.factories import Person
from tests.processes import Server, launch
from tests.test_runs import UTC_ZONE, record, run

DAY = timedelta(days=1)
# A moment of yesterday: what is recorded around it lies in the past, and no midnight passes while a test runs.
NOON = (datetime.now(UTC) - DAY).replace(hour=12, minute=30, second=20, microsecond=0)


def at(before: timedelta) -> dict[str, str]:
    """Have a run begin so long before noon."""
    return {"createdAt": (NOON - before).isoformat()}


async def read(zone: ZoneInfo = UTC_ZONE, now: datetime = NOON) -> dict[str, DashboardFigure]:
    """Read the dashboard as of noon."""
    return {figure.title: figure for figure in await dashboard.read(now, zone)}


# ---------------------------------------------------------------- dashboard

DASHBOARD = "{ dashboard { title value change icon trend raw improved } }"


async def test_the_dashboard_of_a_company_without_runs(user: Person) -> None:
    found = (await user.client.query(DASHBOARD))["dashboard"]

    assert [(each["title"], each["icon"], each["value"], each["raw"]) for each in found] == [
        ("Active Agents", "Bot", "0", 0),
        ("Total Runs Today", "Activity", "0", 0),
        ("Avg Response Time", "Clock", "–", 0),
        ("Total Cost Today", "DollarSign", "$0.00", 0),
    ]
    assert {(each["trend"], each["improved"]) for each in found} == {("FLAT", None)}


async def test_the_dashboard_shows_what_has_just_been_recorded(user: Person) -> None:
    now = datetime.now(UTC).isoformat()
    await record(user.client, run("1", createdAt=now, durationMs=1500, cost="2.5"), run("2", createdAt=now))

    found = (await user.client.query(DASHBOARD))["dashboard"]

    assert [(each["value"], each["raw"]) for each in found] == [("1", 1), ("2", 2), ("1.5 s", 1500), ("$2.50", 2.5)]
    assert [each["trend"] for each in found] == ["UP", "UP", "FLAT", "UP"]
    assert [each["improved"] for each in found] == [True, True, None, False]


async def test_active_agents_are_those_of_48_hours_against_the_same_a_week_earlier(user: Person) -> None:
    week = timedelta(days=7)
    begun = {
        "now": timedelta(),
        "just within": 2 * DAY - timedelta(seconds=1),
        "just too early": 2 * DAY,
        "too late": timedelta(seconds=-1),
        "a week ago": week + DAY,
        "just within a week ago": week,
        "after that": week - timedelta(seconds=1),
        "both": timedelta(hours=30),
    }
    for name, before in begun.items():
        await record(user.client, run("1", **at(before)), agent={"name": name})
    await record(user.client, run("2", **at(week + timedelta(hours=5))), agent={"name": "both"})

    found = (await read())["Active Agents"]

    assert (found.raw, found.change, found.trend.value) == (3, "Same as a week earlier", "FLAT")
    await record(user.client, run("3", **at(timedelta(hours=1))), agent={"name": "a week ago"})
    found = (await read())["Active Agents"]
    assert (found.value, found.change, found.trend.value, found.improved) == (
        "4",
        "+33 % against a week earlier",
        "UP",
        True,
    )


async def test_active_agents_are_counted_without_reading_their_histograms(user: Person) -> None:
    await record(user.client, run("1", **at(DAY), durationMs=5))
    day = figures.number((NOON - DAY).date())
    explained = await database.collection(RunFigures).find({"day": {"$gte": day}}, {"_id": 0, "agent": 1}).explain()

    await figures.active_agents(NOON - 2 * DAY, NOON, UTC_ZONE)

    stage = explained["queryPlanner"]["winningPlan"]
    assert (stage["stage"], stage["inputStage"]["stage"]) == ("PROJECTION_COVERED", "IXSCAN")


async def test_today_is_compared_with_yesterday_up_to_the_same_time(user: Person) -> None:
    await record(
        user.client,
        run("1", **at(timedelta(hours=12, minutes=30)), cost="1"),
        run("2", **at(timedelta()), cost="1"),
        run("3", **at(timedelta(hours=12, minutes=31)), cost="7"),
        run("4", **at(DAY + timedelta(minutes=1)), cost="1"),
        run("yesterday afternoon", **at(DAY - timedelta(minutes=1)), cost="64"),
        run("the day before", **at(DAY + timedelta(hours=12, minutes=31)), cost="64"),
        run("tomorrow", **at(-timedelta(minutes=1)), cost="64"),
    )  # fmt: skip

    found = await read()

    runs, cost = found["Total Runs Today"], found["Total Cost Today"]
    assert (runs.raw, runs.change, runs.improved) == (2, "+100 % against yesterday", True)
    assert (cost.raw, cost.change, cost.improved) == (2, "+100 % against yesterday", False)


async def test_today_is_the_companys(user: Person) -> None:
    zone = ZoneInfo("Asia/Kathmandu")
    # 18:14:59 and 18:15 in UTC are the two sides of midnight there.
    midnight = NOON.replace(hour=18, minute=15, second=0) - DAY
    for place, moment in enumerate((midnight - timedelta(seconds=1), midnight)):
        await record(user.client, run(str(place), createdAt=moment.isoformat()))

    assert (await read(zone))["Total Runs Today"].raw == 1
    assert (await read(zone))["Total Runs Today"].change == "None yesterday"


async def test_response_time_is_the_mean_of_an_hour_against_the_hour_before(user: Person) -> None:
    await record(
        user.client,
        run("1", **at(timedelta()), durationMs=60_000),
        run("2", **at(timedelta(minutes=59)), durationMs=120_000),
        run("untimed", **at(timedelta(minutes=5))),
        run("running", **at(timedelta(minutes=5)), status="RUNNING", durationMs=5),
        run("3", **at(timedelta(minutes=60)), durationMs=100_000),
        run("4", **at(timedelta(minutes=119)), durationMs=140_000),
        run("5", **at(timedelta(minutes=120)), durationMs=1),
    )

    found = (await read())["Avg Response Time"]

    assert (found.value, found.raw, found.change) == ("1 min 30 s", 90_000, "-25 % against the 60 minutes before")
    assert (found.trend.value, found.improved) == ("DOWN", True)


async def test_a_completed_run_counts_once_on_the_dashboard(user: Person) -> None:
    await record(user.client, run("1", **at(timedelta()), status="RUNNING", cost="1"))
    await record(user.client, run("1", **at(timedelta(minutes=10)), durationMs=2000, cost="3"))

    found = await read()

    assert [figure.raw for figure in found.values()] == [1, 1, 2000, 3]


@pytest.mark.parametrize(
    ("milliseconds", "value"),
    [
        (0, "0 ms"),
        (999, "999 ms"),
        (61_000, "1 min 1 s"),
        (59_960, "1 min 0 s"),
        (3_599_600, "1 h 0 min"),
        (5_400_000, "1 h 30 min"),
    ],
)
async def test_times_are_written_as_people_read_them(user: Person, milliseconds: int, value: str) -> None:
    await record(user.client, run("1", **at(timedelta()), durationMs=milliseconds))

    assert (await read())["Avg Response Time"].value == value


async def test_the_dashboard_costs_as_many_commands_however_many_runs(user: Person, store: Database) -> None:
    async def documents() -> int:
        return await store.handle["run_hours"].count_documents({}) + await store.handle["run_figures"].count_documents(
            {}
        )

    await record(user.client, *(run(f"a{n}", **at(timedelta(minutes=n))) for n in range(3)))
    few = await documents()
    await record(user.client, *(run(f"b{n}", **at(timedelta(seconds=n))) for n in range(170)))

    assert await documents() == few


# ---------------------------------------------------------------- what agents come to, day by day

AGENT = """query ($days: Int, $from: Date, $to: Date) { agent(by: {name: "Scout"}) {
  runMetrics { totalRuns completedRuns failedRuns timedOutRuns cancelledRuns lastSeenAt averageRuntimeMs p50RuntimeMs
    successRate spend }
  runTimeline(days: $days, from: $from, to: $to) { day totalRuns failedRuns averageRuntimeMs p95RuntimeMs successRate
    spend } } }"""
TIMELINE = """query ($agent: AgentBy, $from: Date, $to: Date) {
  runTimeline(agent: $agent, from: $from, to: $to) { day totalRuns p50RuntimeMs successRate } }"""
OF_VERSION = """{ agentVersion(agent: {name: "Scout"}, version: "2.0") {
  metrics { failedRuns } runTimeline(from: "2026-05-01", to: "2026-05-03") { day totalRuns } } }"""


async def test_an_agents_runs_day_by_day(user: Person) -> None:
    await record(
        user.client,
        run("1", durationMs=1000, cost="1"),
        run("2", durationMs=3000, status="FAILED"),
        run("3", createdAt="2026-05-03T23:59:59Z", durationMs=10),
    )
    await record(user.client, run("4", status="TIMED_OUT"), run("5", status="CANCELLED"), version="2.0")

    found = (await user.client.query(AGENT, **{"from": "2026-05-01", "to": "2026-05-03"}))["agent"]

    measured, (first, second, third) = found["runMetrics"], found["runTimeline"]
    assert measured.pop("p50RuntimeMs") == pytest.approx(1000, rel=0.02)
    assert measured == {
        "totalRuns": 5,
        "completedRuns": 2,
        "failedRuns": 1,
        "timedOutRuns": 1,
        "cancelledRuns": 1,
        "lastSeenAt": "2026-05-03T23:59:59Z",
        "averageRuntimeMs": pytest.approx(4010 / 3),
        "successRate": 40,
        "spend": "1",
    }
    assert first.pop("p95RuntimeMs") == pytest.approx(3000, rel=0.02)
    assert first == {
        "day": "2026-05-01",
        "totalRuns": 4,
        "failedRuns": 1,
        "averageRuntimeMs": 2000,
        "successRate": 25,
        "spend": "1",
    }
    assert second == {
        "day": "2026-05-02",
        "totalRuns": 0,
        "failedRuns": 0,
        "averageRuntimeMs": None,
        "p95RuntimeMs": None,
        "successRate": None,
        "spend": "0",
    }
    assert (third["totalRuns"], third["successRate"]) == (1, 100)
    version = (await user.client.query(OF_VERSION))["agentVersion"]
    assert version["metrics"] == {"failedRuns": 0}
    assert [day["totalRuns"] for day in version["runTimeline"]] == [2, 0, 0]


async def test_the_companys_runs_day_by_day(user: Person) -> None:
    await record(user.client, run("1", durationMs=1000), run("2", durationMs=5000))
    await record(user.client, run("1", durationMs=9000, status="FAILED"), agent={"name": "Ranger"})
    days = {"from": "2026-05-01", "to": "2026-05-01"}

    (company,) = (await user.client.query(TIMELINE, **days))["runTimeline"]
    (ranger,) = (await user.client.query(TIMELINE, **days, agent={"name": "Ranger"}))["runTimeline"]

    assert company.pop("p50RuntimeMs") == pytest.approx(5000, rel=0.02)
    assert company == {"day": "2026-05-01", "totalRuns": 3, "successRate": pytest.approx(200 / 3)}
    assert (ranger["totalRuns"], ranger["successRate"]) == (1, 0)
    with pytest.raises(GraphQLErrors) as caught:
        await user.client.query(TIMELINE, agent={"name": "Nobody"})
    assert (caught.value.code, caught.value.field) == ("NOT_FOUND", "agent")
    with pytest.raises(GraphQLErrors) as caught:
        await user.client.query("{ runTimeline(days: 367) { day } }")
    assert (caught.value.code, caught.value.field) == ("BAD_USER_INPUT", "days")


async def test_an_agent_without_runs_has_zeros(user: Person) -> None:
    await user.client.query('mutation { registerAgent(input: {name: "Scout"}) { created } }')

    found = (await user.client.query(AGENT, days=2))["agent"]

    assert found["runMetrics"]["totalRuns"] == 0
    assert found["runMetrics"]["lastSeenAt"] is None
    assert [day["totalRuns"] for day in found["runTimeline"]] == [0, 0]


# ---------------------------------------------------------------- recent activity

RECENT = """query ($first: Int) { recentActivity(first: $first) {
  action status at durationMs cost agent { name } run { runId version { version } } } }"""


async def test_recent_activity_begins_with_what_happened_last(user: Person) -> None:
    now = datetime.now(UTC).replace(microsecond=0)

    def ago(minutes: int) -> str:
        return (now - timedelta(minutes=minutes)).isoformat()

    await record(
        user.client,
        run("long", createdAt=ago(50), status="RUNNING"),
        run("short", createdAt=ago(10), durationMs=1000, cost="0.5"),
        run("begun", createdAt=ago(5), status="RUNNING"),
        run("ahead", createdAt=ago(-10), durationMs=3_600_000, status="TIMED_OUT"),
    )
    await record(user.client, run("long", createdAt=ago(50), status="FAILED", durationMs=49 * 60_000))

    found = (await user.client.query(RECENT))["recentActivity"]

    assert [(each["run"]["runId"], each["action"]) for each in found] == [
        ("ahead", "timed out"),
        ("long", "failed"),
        ("begun", "started"),
        ("short", "completed"),
    ]
    assert datetime.fromisoformat(found[0]["at"]) <= datetime.now(UTC)
    assert found[1] == {
        "action": "failed",
        "status": "FAILED",
        "at": ago(1).replace("+00:00", "Z"),
        "durationMs": 49 * 60_000,
        "cost": "0",
        "agent": {"name": "Scout"},
        "run": {"runId": "long", "version": {"version": "1.0"}},
    }
    assert len((await user.client.query(RECENT, first=2))["recentActivity"]) == 2
    for wrong in (0, 101):
        with pytest.raises(GraphQLErrors) as caught:
            await user.client.query(RECENT, first=wrong)
        assert (caught.value.code, caught.value.field) == ("BAD_USER_INPUT", "first")


# ---------------------------------------------------------------- many writers


async def test_what_many_processes_keep_is_exact(user: Person, server: Server, mongodb_uri: str) -> None:
    now = datetime.now(UTC).replace(microsecond=0)
    async with Server(mongodb_uri, **server.settings) as second, Server(mongodb_uri, **server.settings) as third:
        doors = [Client(user.client.session, door.graphql, user.access_token) for door in (server, second, third)]
        await asyncio.gather(
            *(
                record(
                    doors[turn % 3],
                    *(run(f"{turn}-{n}", createdAt=now.isoformat(), durationMs=n, cost="0.01") for n in range(20)),
                    agent={"name": f"Agent {turn % 4}"},
                )
                for turn in range(24)
            )
        )

    found = (await user.client.query(DASHBOARD))["dashboard"]
    assert [each["raw"] for each in found] == [4, 480, 9.5, 4.8]
    assert (await rebuild(UTC_ZONE, repair=False)).differences == []


# ---------------------------------------------------------------- counted anew


async def test_every_spoilt_figure_is_found_and_repaired(user: Person, server: Server) -> None:
    now = datetime.now(UTC)
    await record(user.client, run("1", createdAt=now.isoformat(), durationMs=2000, cost="1"), run("2", durationMs=4000))
    right = await kept()
    await database.collection(RunFigures).update_many({}, {"$inc": {"total_runs": 3, "runtimes.7": 1}})
    await database.collection(RunFigures).update_many({"day": {"$gt": 0}}, {"$set": {"last_at": now + DAY}})
    await database.collection(RunHour).update_many({}, {"$inc": {"total_runs": 2, "minutes.61.total_runs": 1}})
    # What no run says at all.
    spoilt = {"_id": f"agent:{'a' * 24}:20260501", "day": 20260501, "total_runs": 2, "first_at": now, "last_at": now}
    await database.collection(RunFigures).insert_one(spoilt)
    await database.collection(RunFigures).delete_one({"_id": {"$regex": "^version:.*:20260501"}})

    process = await launch("rebuild", "runs", **server.settings)
    said, _ = await process.communicate()

    assert await process.wait() == 0
    assert "total_runs was 4, is 1" in said.decode()
    assert await kept() == right
    assert (await rebuild(UTC_ZONE, repair=False)).differences == []


async def test_days_follow_the_time_zone_when_counted_anew(user: Person) -> None:
    await record(user.client, run("1", createdAt="2026-05-01T23:00:00Z"))
    berlin = ZoneInfo("Europe/Berlin")

    await rebuild(berlin, repair=True)

    days = {row["day"] async for row in database.collection(RunFigures).find({"day": {"$gt": 0}})}
    assert days == {20260502}
    assert (await rebuild(berlin, repair=False)).differences == []


async def kept() -> dict[str, Any]:
    """Read all that is kept of runs by day and hour, zeros left out; parts added up."""
    found: dict[str, dict[str, int]] = {}
    spans: dict[str, Any] = {}
    async for row in database.collection(RunFigures).find({}):
        kind, whose, day = row["_id"].split(":")
        key = f"{kind}:{day}" if kind == "company" else f"{kind}:{whose}:{day}"
        found[key] = figures.added_up([found.get(key, {}), figures.flat(row)])
        if kind != "company":
            spans[key] = {name: row.get(name) for name in ("first_at", "last_at", "agent", "day")}
    async for row in database.collection(RunHour).find({}):
        key = row["_id"].split(":")[0]
        found[key] = figures.added_up([found.get(key, {}), figures.flat_hour(row)])
    sums = {key: {name: value for name, value in each.items() if value} for key, each in found.items()}
    return {"sums": sums, "spans": spans}
