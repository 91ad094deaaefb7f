"""What the budget of a thread does to it: people and agents are told how far it is used; it stops, it goes on."""

from collections.abc import Sequence

from models.alerts import raised
from models.alerts.raised import Reached
from models.budgets.accounts import Crossing
from models.budgets.kept import Scope
from models.store.database import Key, Session
from models.threads import conversations, warnings

_ALL = 100


async def crossed(crossings: Sequence[Crossing], /, *, session: Session) -> None:
    """Tell people and agents of each crossing, and stop the threads that have nothing left."""
    reached = []
    for each in crossings:
        thread = Key(each.scope.key)
        agent = each.agent or await _first(thread, session=session)
        if agent is not None:
            reached.append(Reached(agent, thread, each.percent, value=each.used, threshold=each.limit, at=each.at))
    await raised.raise_plain(reached, session=session)
    await warnings.tell(crossings, session=session)
    for each in crossings:
        if each.percent >= _ALL:
            await conversations.exhaust(Key(each.scope.key), session=session)


async def reopened(scopes: Sequence[Scope], /, *, session: Session) -> None:
    """Have threads take messages again that have tokens again."""
    for each in scopes:
        await conversations.reopen(Key(each.key), session=session)


async def _first(thread: Key, *, session: Session) -> Key | None:
    row = await conversations.find(thread, session=session)
    return row["participants"][0] if row and row["participants"] else None
