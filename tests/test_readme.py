"""The snippets of the README and of the pages that it names run as they are printed; its table is the settings'."""

import asyncio
import json
import os
import re
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Final

import aiohttp
import pytest

from server.settings import Settings
from tests.client import Client
from tests.processes import ROOT, Server

README = (ROOT / "README.md").read_text()


def snippets(language: str, page: str) -> list[str]:
    """Give the snippets of a page, in order."""
    return re.findall(rf"```{language}\n(.*?)```", (ROOT / page).read_text(), re.DOTALL)


SIGN_IN, ASK, REPORT, SHEET = snippets("sh", "README.md")
(WATCH,) = snippets("python", "README.md")
PRICE, COST = snippets("sh", "docs/prices.md")
RUNS = snippets("sh", "docs/runs.md")
(SPEND,) = snippets("sh", "docs/budgets.md")
(ORGANISM,) = snippets("yaml", "docs/organism.md")
RELOAD, MAKE_KEY, INJECT = snippets("sh", "docs/organism.md")
(TAKE,) = snippets("python", "docs/organism.md")


THREADS: Final = "{ threads { nodes { status participants { name state } budget { totalTokens } } } }"


@pytest.fixture(scope="module")
async def demo(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Server]:
    """Run the demo company, embedded database and all, as `make run` does."""
    data = tmp_path_factory.mktemp("demo")
    organism = data / "organism.yaml"
    organism.write_text(ORGANISM)
    async with Server(None, "--demo", DATA_DIR=str(data), ORGANISM_FILE=str(organism)) as server:
        yield server


async def shell(script: str, server: Server, **environment: str) -> str:
    """Run a snippet against this server instead of the one it names."""
    process = await asyncio.create_subprocess_exec(
        "bash",
        "-euo",
        "pipefail",
        "-c",
        script.replace("http://127.0.0.1:8000", server.url),
        env={**os.environ, **environment},
        stdout=asyncio.subprocess.PIPE,
    )
    output, _ = await process.communicate()
    assert process.returncode == 0
    return output.decode()


async def test_threads_of_the_demo_company_stand_in_every_state_that_people_meet(
    demo: Server, session: aiohttp.ClientSession
) -> None:
    token = (await shell(f"{SIGN_IN}\nprintenv TOKEN", demo)).strip()

    answer = await Client(session, demo.graphql, token).query(THREADS)

    by_agent = {
        each["participants"][0]["name"]: (
            each["status"],
            each["participants"][0]["state"],
            each["budget"]["totalTokens"],
        )
        for each in answer["threads"]["nodes"]
    }
    assert by_agent["Contract Reader"] == ("COMPLETED", "IDLE", 25_400)
    assert by_agent["Release Watcher"] == ("EXHAUSTED", "IDLE", 101_500)
    assert by_agent["Travel Desk"] == ("ACTIVE", "PAUSED", 0)
    assert by_agent["Expense Auditor"] == ("ACTIVE", "ERROR", 7_700)


async def test_the_snippets_run_as_they_are_printed(demo: Server) -> None:
    add, one, two, versions, figures = RUNS
    token = (await shell(f"{SIGN_IN}\nprintenv TOKEN", demo)).strip()

    asked = json.loads(await shell(ASK, demo, TOKEN=token))
    reported = json.loads(await shell(REPORT, demo, TOKEN=token))
    again = json.loads(await shell(REPORT, demo, TOKEN=token))

    priced = await shell(PRICE, demo, TOKEN=token)
    costed = json.loads(await shell(COST, demo, TOKEN=token))["data"]
    runs = [json.loads(await shell(snippet, demo, TOKEN=token)) for snippet in (add, one, two, one, versions, figures)]
    spent = json.loads(await shell(SPEND, demo, TOKEN=token))
    reloaded = json.loads(await shell(RELOAD, demo, TOKEN=token))
    exported = await shell(SHEET, demo, TOKEN=token)

    assert exported.startswith("\ufeffname,description,")
    assert "Market Scout" in exported
    assert asked["data"]["agents"]["totalCount"] == 62
    assert reloaded["data"]["reloadOrganism"] == {
        "organism": {"name": "Harbour Desk", "revision": 1, "counts": {"agents": 1, "listeners": 1}},
        "changes": [],
    }
    assert all(node["usage"]["totalTokens"] > 0 for node in asked["data"]["agents"]["nodes"])
    assert reported["data"]["collectUsage"]["accepted"] == 1
    assert again["data"]["collectUsage"]["duplicates"] == 1
    assert [json.loads(each)["data"].keys() for each in priced.replace("}{", "}\n{").splitlines()] == [
        {"setPrice"},
        {"collectUsage"},
    ]
    # 200 tokens at 0.125 dollars a million, 1,000 at 0.0125, 300 at 1.
    assert costed["usageEvent"] == {
        "cost": "0.0003375",
        "costSource": "TABLE",
        "price": {"modelPrefix": "gpt-5-mini", "provider": "our-proxy"},
    }
    assert {(each["modelPrefix"], each["provider"], each["prompt"]) for each in costed["prices"]["nodes"]} == {
        ("gpt-5", None, "1.25"),
        ("gpt-5-mini", "our-proxy", "0.125"),
        ("gpt-5-mini", None, "0.25"),
    }
    assert costed["usageSummary"]["totals"]["requests"] > 1000
    assert len(costed["usageSummary"]["byAgent"]) == 3
    assert spent["data"]["settleTokens"]["budget"] == {
        "totalTokens": 1550,
        "reservedTokens": 0,
        "remaining": 98_450,
        "percentUsed": 1.55,
    }
    added, recorded, both, repeated, listed, shown = (each["data"] for each in runs)
    assert added["addAgentVersion"]["agentVersion"]["version"] == "7.1"
    assert recorded["recordRuns"] == {"accepted": 1, "duplicates": 0, "rejected": 0, "items": []}
    assert both["recordRuns"] == {"accepted": 2, "duplicates": 0, "rejected": 0, "items": []}
    assert repeated["recordRuns"]["duplicates"] == 1
    (version,) = listed["agentVersions"]["nodes"]
    assert version["cluster"] == "eu-1"
    assert version["metrics"]["p50RuntimeMs"] == pytest.approx(62_500, rel=0.02)
    assert {name: version["metrics"][name] for name in ("totalRuns", "averageRuntimeMs", "successRate", "spend")} == {
        "totalRuns": 3,
        "averageRuntimeMs": 196_250,
        "successRate": 50,
        "spend": "0.15",
    }
    assert [figure["title"] for figure in shown["dashboard"]] == [
        "Active Agents",
        "Total Runs Today",
        "Avg Response Time",
        "Total Cost Today",
    ]
    assert all(figure["raw"] > 0 for figure in shown["dashboard"][:1])
    assert len(shown["recentActivity"]) == 5
    assert [day["totalRuns"] > 0 for day in shown["runTimeline"]] == [True] * 7


async def test_the_subscription_hears_the_stored_alerts(demo: Server) -> None:
    token = (await shell(f"{SIGN_IN}\nprintenv TOKEN", demo)).strip()
    query = '{"query": "{ alerts(first: 100) { totalCount nodes { cursor agent { name } } } }"}'
    ask = f"curl -s {demo.graphql} -H 'Content-Type: application/json' -H 'Authorization: Bearer {token}' -d '{query}'"
    alerts = json.loads(await shell(ask, demo))["data"]["alerts"]
    assert alerts["totalCount"] > 3
    script = WATCH.replace("ws://127.0.0.1:8000", demo.url.replace("http", "ws"))

    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-c",
        script,
        env={**os.environ, "TOKEN": token, "AFTER": alerts["nodes"][2]["cursor"]},
        stdout=asyncio.subprocess.PIPE,
    )
    assert process.stdout is not None
    heard = [(await process.stdout.readline()).decode() for _ in range(2)]
    process.terminate()
    await process.wait()

    for line, alert in zip(heard, reversed(alerts["nodes"][:2]), strict=True):
        assert alert["cursor"] in line


async def test_an_agent_takes_its_messages(demo: Server) -> None:
    token = (await shell(f"{SIGN_IN}\nprintenv TOKEN", demo)).strip()
    key = (await shell(f"{MAKE_KEY}\nprintenv AGENT_KEY", demo, TOKEN=token)).strip()
    script = TAKE.replace("ws://127.0.0.1:8000", demo.url.replace("http", "ws"))

    sent = json.loads(await shell(INJECT, demo, TOKEN=token))["data"]["injectMessage"]["message"]
    again = json.loads(await shell(INJECT, demo, TOKEN=token))["data"]["injectMessage"]["message"]
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", script),
        env={**os.environ, "AGENT_KEY": key},
        stdout=asyncio.subprocess.PIPE,
    )
    assert process.stdout is not None
    heard = (await process.stdout.readline()).decode()
    process.terminate()
    await process.wait()

    assert sent["id"] == again["id"]
    assert (sent["thread"]["status"], sent["delivery"]["status"]) == ("ACTIVE", "PENDING")
    assert heard == "{'text': 'When does the ferry leave?'} 1\n"


def test_the_table_names_every_setting_as_the_code_does() -> None:
    for name, field in Settings.model_fields.items():
        assert f"| `{name.upper()}` | {field.description} |" in README


def test_the_pages_that_are_named_are_there() -> None:
    pages = [ROOT / "README.md", *(ROOT / "docs").glob("*.md")]

    named = {page.parent / link for page in pages for link in re.findall(r"\]\(([^):#]+)[^):]*\)", page.read_text())}

    assert len(named) > 8
    assert [str(each) for each in sorted(named) if not each.exists()] == []


def test_the_command_that_tests_run_by_is_the_readmes() -> None:
    assert "make test" in README
    assert "make test" in Path(ROOT / ".ci" / "run").read_text()
