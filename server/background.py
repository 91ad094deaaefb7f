"""What is done beside serving: messages sent, old runs removed; by each process that serves, or by one of its own."""

import asyncio
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import structlog

from graph.context import Services
from models.alerts.rules import AlertChannel
from server.settings import Settings
from workers import mailgun, webhooks
from workers.delivery import Channel, Delivery
from workers.mailgun import Mailgun
from workers.posting import Posting
from workers.retention import Retention
from workers.webhooks import Webhooks

log = structlog.get_logger()


@asynccontextmanager
async def working(settings: Settings, services: Services, *, every_s: float = 1.0) -> AsyncIterator[None]:
    """Do it until the block ends. Any number of processes may: each piece of work is leased to one of them.

    `every_s`: how often to look for messages that were sent by another process; one's own are posted at once.
    """
    key = settings.mailgun_api_key
    inward = settings.webhooks_to_private_addresses
    async with mailgun.session() as mails, webhooks.session(inward=inward) as hooks:
        letters = Mailgun(
            mails,
            key=key.get_secret_value() if key else None,
            domain=settings.mailgun_domain,
            sender=settings.sender,
            base_url=settings.mailgun_base_url,
        )
        channels: dict[str, Channel] = {
            AlertChannel.EMAIL.value: letters,
            AlertChannel.WEBHOOK.value: Webhooks(hooks, services.signing),
        }
        async with (
            Delivery(channels),
            Posting(services.messaging, hooks, services.signing, every_s=every_s),
            Retention(settings.run_retention_days, settings.zone),
        ):
            yield


async def work(settings: Settings, services: Services) -> None:
    """Do nothing else, until SIGINT or SIGTERM."""
    stopping = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, stopping.set)
    # All that it posts was sent by others.
    async with working(settings, services, every_s=0.1):
        log.info("working")
        await stopping.wait()
    log.info("stopped")
