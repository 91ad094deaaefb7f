"""Runs the three agents against a server, and shows what it does with them: a round, a pause, a runaway."""

import argparse
import asyncio
import os
import sys
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any, Final
from urllib.parse import urlsplit
from uuid import uuid4

from aiohttp import web
from gql.transport.exceptions import TransportConnectionFailed

from examples import agents
from examples.hub import Hub, connected

NAMES: Final = ("Clerk", "Librarian", "Chatterbox")
LOGIN: Final = """
mutation ($email: String!, $password: String!) {
  login(input: {email: $email, password: $password}) { session { accessToken } }
}
"""
DECLARED: Final = """
{ organism { name agents { nodes { endpoint agent { name endpointSecret } } } } }
"""
CREATE_KEY: Final = """
mutation ($agent: String!) {
  createApiKey(input: {name: "example", scopes: [READ, COLLECT], agent: {name: $agent}}) { secret apiKey { id } }
}
"""
REVOKE_KEY: Final = "mutation ($id: ID!) { revokeApiKey(input: {id: $id}) { apiKey { id } } }"
INJECT: Final = """
mutation ($input: InjectMessageInput!) { injectMessage(input: $input) { message { id thread { id } } } }
"""
UPDATES: Final = """
subscription ($thread: ID!) {
  threadUpdates(thread: $thread) { thread { status messages(first: 100) { nodes { delivery { status } } } } }
}
"""
THREAD: Final = """
query ($thread: ID!) {
  thread(id: $thread) {
    status closedReason budget { totalTokens maxTokens }
    messages(first: 100) {
      totalCount nodes { payload payloadType senderName recipient { name } delivery { deliveredAt } }
    }
  }
}
"""
PAUSE: Final = 'mutation { pauseAgent(input: {agent: {name: "Clerk"}}) { agent { state } } }'
RESUME: Final = 'mutation { resumeAgent(input: {agent: {name: "Clerk"}}) { agent { state } } }'
CLERK: Final = '{ agent(by: {name: "Clerk"}) { state queueDepth } }'


def say(line: str) -> None:
    """Tell what happens."""
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


async def main(url: str, email: str, password: str, *, stay: bool) -> None:
    """Sign in, run the agents, and show them."""
    async with connected(url) as nobody:
        session = (await nobody.ask(LOGIN, email=email, password=password))["login"]["session"]
    async with connected(url, session["accessToken"]) as boss, running(boss, url):
        await a_message_goes_round(boss)
        await a_pause_holds_messages(boss)
        await a_runaway_is_stopped(boss)
        if stay:
            say("The agents go on until Ctrl-C.")
            await asyncio.Event().wait()


@asynccontextmanager
async def running(boss: Hub, url: str) -> AsyncIterator[None]:
    """Run the agents, each with an API key of its own."""
    nodes = (await boss.ask(DECLARED))["organism"]["agents"]["nodes"]
    declared = {each["agent"]["name"]: each for each in nodes}
    if not declared.keys() >= set(NAMES):
        sys.exit("The server does not know these agents. Start it with ORGANISM_FILE=examples/organism.yaml.")
    async with AsyncExitStack() as stack:
        hubs = {}
        for name in NAMES:
            made = (await boss.ask(CREATE_KEY, agent=name))["createApiKey"]
            stack.push_async_callback(boss.ask, REVOKE_KEY, id=made["apiKey"]["id"])
            hubs[name] = await stack.enter_async_context(connected(url, made["secret"]))
        endpoint = declared["Librarian"]["endpoint"]
        secret = declared["Librarian"]["agent"]["endpointSecret"]
        runner = web.AppRunner(agents.librarian(hubs["Librarian"], endpoint=endpoint, secret=secret, say=say))
        await runner.setup()
        stack.push_async_callback(runner.cleanup)
        await web.TCPSite(runner, urlsplit(endpoint).hostname, urlsplit(endpoint).port).start()
        async with asyncio.TaskGroup() as group:
            tasks = [
                group.create_task(agents.clerk(hubs["Clerk"], say)),
                group.create_task(agents.chatterbox(hubs["Chatterbox"], say)),
            ]
            yield
            for task in tasks:
                task.cancel()


async def a_message_goes_round(boss: Hub) -> None:
    """Ask the Clerk, who asks the Librarian, who answers."""
    say("\nA message goes round.")
    thread = await inject(boss, to="Clerk", kind="question", payload={"text": "When does the ferry leave?"})
    done = await until(boss, thread, "COMPLETED")
    for message in done["messages"]["nodes"]:
        say(f"  {message['senderName']} -> {message['recipient']['name']}: {message['payloadType']}")


async def a_pause_holds_messages(boss: Hub) -> None:
    """Pause the Clerk: what is sent waits, and comes in its order afterwards."""
    say("\nA pause holds messages.")
    await boss.ask(PAUSE)
    name = f"example {uuid4()}"
    for place in range(1, 4):
        note = {"text": f"note {place}"}
        thread = await inject(boss, to="Clerk", kind="note", payload=note, thread={"key": name})
    clerk = (await boss.ask(CLERK))["agent"]
    say(f"  Clerk is {clerk['state']}, {clerk['queueDepth']} messages wait.")
    await boss.ask(RESUME)
    notes = (await until(boss, thread, "ACTIVE"))["messages"]["nodes"]
    notes.sort(key=lambda each: each["delivery"]["deliveredAt"])
    say(f"  Delivered: {', '.join(each['payload']['text'] for each in notes)}.")


async def a_runaway_is_stopped(boss: Hub) -> None:
    """Have two agents answer each other until the tokens of their thread are used up."""
    say("\nTwo agents run away.")
    thread = await inject(boss, to="Chatterbox", kind="chatter", payload={"turn": 0})
    done = await until(boss, thread, "EXHAUSTED")
    budget = done["budget"]
    say(f"  {done['messages']['totalCount']} messages, {budget['totalTokens']} of {budget['maxTokens']} tokens:")
    say(f"  {done['closedReason']}")


async def inject(boss: Hub, *, to: str, kind: str, payload: Mapping[str, object], **more: object) -> str:
    """Send a message as the operator, and give its thread."""
    values = {"to": {"name": to}, "payloadType": kind, "payload": payload, **more}
    thread: str = (await boss.ask(INJECT, input=values))["injectMessage"]["message"]["thread"]["id"]
    return thread


async def until(boss: Hub, thread: str, status: str) -> dict[str, Any]:
    """Wait until a thread has come to a status and all its messages are delivered, and read it."""
    async for update in boss.watch(UPDATES, thread=thread):
        now = update["threadUpdates"]["thread"]
        if now["status"] == status and all(
            each["delivery"]["status"] == "DELIVERED" for each in now["messages"]["nodes"]
        ):
            break
    read: dict[str, Any] = (await boss.ask(THREAD, thread=thread))["thread"]
    return read


def run() -> None:
    """Read the command line."""
    parser = argparse.ArgumentParser(prog="python -m examples", description=__doc__)
    here = f"http://127.0.0.1:{os.environ.get('PORT', '8000')}"
    parser.add_argument("--url", default=here, help=f"the server; {here} without it")
    parser.add_argument("--email", default="admin@agenthub.com", help="an admin's e-mail")
    parser.add_argument("--password", default="admin123", help="and password")
    parser.add_argument("--stay", action="store_true", help="go on after the tour")
    given = parser.parse_args()
    try:
        asyncio.run(main(given.url, given.email, given.password, stay=given.stay))
    except KeyboardInterrupt:
        sys.exit(130)
    except TransportConnectionFailed:
        sys.exit(f"No AgentHub answers at {given.url}. Start one with `make run`, or say where it is with --url.")


if __name__ == "__main__":
    run()
