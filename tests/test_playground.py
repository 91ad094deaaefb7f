"""The playground: served by ourselves, asking no other host, and answering in a browser."""

import asyncio
import re
import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from server import playground
from tests.processes import ROOT, Server

DIST = ROOT / "playground" / "dist"
CHROMIUM = shutil.which("chromium")
FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--remote-debugging-port=0",
)
ANSWER = "(document.querySelector('.graphiql-response')?.textContent ?? '').replace(/\\u00a0/g, ' ')"
RUN = """
(async () => {
  const frame = () => new Promise(requestAnimationFrame);
  const button = () => document.querySelector('.graphiql-execute-button');
  for (;;) {
    button().click();
    do await frame(); while (/stop/i.test(button().getAttribute('aria-label')));
    for (let frames = 0; frames < 10; frames++) await frame();
    if (%s.includes('%s')) return true;
  }
})()
"""
BROWSER = pytest.mark.skipif(not (CHROMIUM and DIST.is_dir()), reason="needs chromium and `make playground`")
HTML = {"Accept": "text/html"}


def test_a_playground_that_is_not_built_says_how_it_is(tmp_path: Path) -> None:
    response = playground.page(tmp_path)

    assert b"make playground" in bytes(response.body)
    assert "script-src" not in response.headers["content-security-policy"]
    assert "default-src 'self'" in response.headers["content-security-policy"]


class Page:
    """A page of a real browser, driven by the protocol of its developer tools."""

    def __init__(self, socket: aiohttp.ClientWebSocketResponse) -> None:
        self._socket = socket
        self._number = 0
        self.asked: list[str] = []
        self.errors: list[str] = []

    async def call(self, method: str, **parameters: Any) -> dict[str, Any]:
        """Send a command and give its result."""
        self._number += 1
        await self._socket.send_json({"id": self._number, "method": method, "params": parameters})
        while True:
            message = await self._socket.receive_json(timeout=20)
            if message.get("method") == "Network.requestWillBeSent":
                self.asked.append(message["params"]["request"]["url"])
            if message.get("method") == "Runtime.exceptionThrown":
                self.errors.append(str(message["params"]))
            if message.get("id") == self._number:
                result: dict[str, Any] = message.get("result", {})
                return result

    async def value(self, expression: str) -> Any:
        """Evaluate an expression; None while the page is being replaced."""
        answer = await self.call("Runtime.evaluate", expression=expression, awaitPromise=True, returnByValue=True)
        return answer.get("result", {}).get("value")

    async def until(self, expression: str) -> None:
        """Wait for an expression to hold, looking at each frame that the browser draws."""
        look = f"new Promise(done => requestAnimationFrame(() => done(Boolean({expression}))))"
        async with asyncio.timeout(30):
            while not await self.value(look):
                pass

    async def run(self, label: str, expected: str) -> None:
        """Run the tab that is open, whose operation has this name, and wait for what its answer holds."""
        await self.until(f"document.querySelector('.graphiql-query-editor')?.textContent.includes('{label}')")
        async with asyncio.timeout(30):
            assert await self.value(RUN % (ANSWER, expected)), self.errors


@asynccontextmanager
async def browse(url: str, profile: Path) -> AsyncIterator[Page]:
    """Open a page in headless Chromium."""
    assert CHROMIUM
    process = await asyncio.create_subprocess_exec(
        CHROMIUM, *FLAGS, f"--user-data-dir={profile}", "about:blank", stderr=asyncio.subprocess.PIPE
    )
    assert process.stderr is not None
    try:
        while not (found := re.search(rb"ws://(127\.0\.0\.1:\d+)/", line := await process.stderr.readline())):
            assert line, "the browser ended"
        async with aiohttp.ClientSession() as session:
            async with session.get(f"http://{found[1].decode()}/json/list") as listed:
                target = next(each for each in await listed.json() if each["type"] == "page")
            async with session.ws_connect(target["webSocketDebuggerUrl"], max_msg_size=0) as socket:
                page = Page(socket)
                for domain in ("Page", "Network", "Runtime"):
                    await page.call(f"{domain}.enable")
                await page.call("Page.navigate", url=url)
                yield page
    finally:
        process.terminate()
        await process.wait()


@BROWSER
async def test_a_browser_opens_the_playground_and_signs_in(tmp_path: Path) -> None:
    async with Server(None, "--demo", DATA_DIR=str(tmp_path / "data")) as server:
        async with aiohttp.ClientSession() as session, session.get(server.graphql, headers=HTML) as answer:
            assert answer.status == 200
            assert "frame-ancestors 'none'" in answer.headers["content-security-policy"]
            async with session.get(f"{server.url}/playground/index.html") as file:
                assert file.headers["content-security-policy"] == answer.headers["content-security-policy"]
                assert file.headers["x-content-type-options"] == "nosniff"
        async with browse(server.graphql, tmp_path / "profile") as page:
            await page.run("SignIn", "Ada Admin")

        assert page.errors == []
        foreign = [url for url in page.asked if not url.startswith((server.url, "data:", "blob:"))]
        assert foreign == []
