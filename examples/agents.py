"""The three agents: one reads its inbox, one is posted to, and one never stops of itself."""

import base64
import hmac
import json
from collections.abc import Callable
from typing import Any
from urllib.parse import urlsplit

from aiohttp import web

from examples.hub import Exhausted, Hub

Say = Callable[[str], None]


async def clerk(hub: Hub, say: Say) -> None:
    """Read the inbox; hand questions on to the Librarian, and be polite to the Chatterbox."""
    async for message in hub.inbox("Clerk"):
        kind, payload = message["payloadType"], message["payload"]
        if kind == "budget":
            say(f"Clerk: {payload['percent']} % of this thread's tokens are used")
        elif kind == "chatter":
            await _chat(hub, message, to="Chatterbox", say=say)
        elif kind == "note":
            say(f"Clerk: noted: {payload['text']}")
        elif kind == "answer":
            say(f"Clerk: the answer is: {payload['text']}")
            await hub.ask(COMPLETE, thread=message["thread"]["id"])
        else:
            say(f"Clerk: somebody asks: {payload['text']}")
            await hub.answer(message, to="Librarian", kind="question", payload=payload)


async def chatterbox(hub: Hub, say: Say) -> None:
    """Answer whatever comes."""
    async for message in hub.inbox("Chatterbox"):
        if message["payloadType"] == "chatter":
            await _chat(hub, message, to="Clerk", say=say)


async def _chat(hub: Hub, message: dict[str, Any], *, to: str, say: Say) -> None:
    turn = message["payload"]["turn"] + 1
    try:
        await hub.think(message)
        await hub.answer(message, to=to, kind="chatter", payload={"turn": turn})
    except Exhausted:
        say(f"Stopped by the budget at turn {turn}")


def librarian(hub: Hub, *, endpoint: str, secret: str, say: Say) -> web.Application:
    """Make the server that messages are posted to."""
    key = base64.b64decode(secret.removeprefix("whsec_"))

    async def take(request: web.Request) -> web.Response:
        body = await request.read()
        if not _is_signed(request, body, key):
            return web.Response(status=401)
        data = json.loads(body)["data"]
        if data["payloadType"] == "question":
            say(f"Librarian: looking up: {data['payload']['text']}")
            message = {"id": data["message"], "thread": {"id": data["thread"]}}
            await hub.answer(message, to="Clerk", kind="answer", payload={"text": "At noon, from the east pier."})
        return web.Response()

    application = web.Application()
    application.router.add_post(urlsplit(endpoint).path, take)
    return application


def _is_signed(request: web.Request, body: bytes, key: bytes) -> bool:
    """Check the signature as Standard Webhooks has it. One that keeps answers would refuse old timestamps as well."""
    signed = f"{request.headers['webhook-id']}.{request.headers['webhook-timestamp']}.".encode() + body
    right = "v1," + base64.b64encode(hmac.digest(key, signed, "sha256")).decode()
    given = request.headers["webhook-signature"].split(" ")
    return any(hmac.compare_digest(right, each) for each in given)


COMPLETE = "mutation ($thread: ID!) { completeThread(input: {thread: $thread}) { thread { status } } }"
