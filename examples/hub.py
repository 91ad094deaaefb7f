"""What an agent needs of AgentHub: its inbox, to answer, to send, and to hold tokens before it spends them."""

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any, Final

from gql import Client, GraphQLRequest
from gql.client import AsyncClientSession
from gql.transport.exceptions import TransportQueryError
from gql.transport.websockets import WebsocketsTransport

INBOX: Final = """
subscription ($agent: AgentBy!) {
  inbox(agent: $agent) { lease message { id payloadType payload sender { name } thread { id } } }
}
"""
ACKNOWLEDGE: Final = """
mutation ($message: ID!, $lease: ID!) {
  acknowledgeMessage(input: {message: $message, lease: $lease}) { message { id } }
}
"""
SEND: Final = """
mutation ($input: SendMessageInput!) { sendMessage(input: $input) { message { id } } }
"""
RESERVE: Final = """
mutation ($input: ReserveTokensInput!) { reserveTokens(input: $input) { reservation { id } } }
"""
SETTLE: Final = """
mutation ($input: SettleTokensInput!) { settleTokens(input: $input) { budget { remaining } } }
"""


class Exhausted(Exception):
    """The token budget of the thread is used up."""


class Hub:
    """One signed-in connection."""

    def __init__(self, session: AsyncClientSession) -> None:
        self._session = session

    async def ask(self, document: str, **variables: object) -> dict[str, Any]:
        """Run a query or a mutation. Raises `Exhausted` where a budget refuses it."""
        try:
            return dict(await self._session.execute(GraphQLRequest(document, variable_values=variables)))
        except TransportQueryError as error:
            if any(each["extensions"]["code"] == "BUDGET_EXHAUSTED" for each in error.errors or ()):
                raise Exhausted from None
            raise

    async def watch(self, document: str, **variables: object) -> AsyncIterator[dict[str, Any]]:
        """Give the events of a subscription."""
        async for event in self._session.subscribe(GraphQLRequest(document, variable_values=variables)):
            yield dict(event)

    async def inbox(self, agent: str) -> AsyncIterator[dict[str, Any]]:
        """Give the messages to an agent. Each is acknowledged once the next is asked for: what fails comes again."""
        async for event in self.watch(INBOX, agent={"name": agent}):
            message = event["inbox"]["message"]
            yield message
            await self.ask(ACKNOWLEDGE, message=message["id"], lease=event["inbox"]["lease"])

    async def answer(self, message: Mapping[str, Any], *, to: str, kind: str, payload: Mapping[str, object]) -> None:
        """Send a message that follows from one: once, however often that one comes."""
        values = {
            "to": {"name": to},
            "payloadType": kind,
            "payload": payload,
            "thread": {"id": message["thread"]["id"]},
        }
        await self.ask(SEND, input={**values, "idempotencyKey": f"{message['id']} {kind}"})

    async def think(self, message: Mapping[str, Any], *, tokens: int = 1000) -> None:
        """Hold tokens, call a model (there is none here), and say what it spent. Raises `Exhausted`."""
        held = {"thread": message["thread"]["id"], "tokens": tokens, "idempotencyKey": message["id"]}
        reservation = (await self.ask(RESERVE, input=held))["reserveTokens"]["reservation"]["id"]
        spent = {"reservation": reservation, "promptTokens": tokens * 3 // 4, "completionTokens": tokens // 4}
        await self.ask(SETTLE, input=spent)


@asynccontextmanager
async def connected(url: str, token: str | None = None) -> AsyncIterator[Hub]:
    """Open a connection, for a person's access token or an agent's API key."""
    transport = WebsocketsTransport(
        url=f"{url.replace('http', 'ws', 1)}/graphql",
        init_payload={"authorization": f"Bearer {token}"} if token else {},
        subprotocols=[WebsocketsTransport.GRAPHQLWS_SUBPROTOCOL],
    )
    async with Client(transport=transport) as session:
        yield Hub(session)
