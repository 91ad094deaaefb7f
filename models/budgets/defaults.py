"""The limit of a budget whose opener names none: what the organism's file declares, else what the settings say."""

from models.budgets.kept import ScopeKind
from models.store import database
from models.store.database import Session, Stored


class BudgetDefault(Stored):
    """What is declared for one kind of scope, which is its key; there is none where nothing is declared."""

    id: ScopeKind  # type: ignore[assignment]  # the kind, where Beanie expects an ObjectId
    limit: int

    class Settings:
        """Where it is stored."""

        name = "budget_defaults"


async def thread_tokens(*, otherwise: int, session: Session | None = None) -> int:
    """Give the tokens of a thread that is opened without a limit; `otherwise` where the organism declares none."""
    row = await database.collection(BudgetDefault).find_one({"_id": ScopeKind.THREAD.value}, session=session)
    return row["limit"] if row else otherwise


async def declare(limit: int | None, *, session: Session) -> None:
    """Keep what the organism declares for threads; None for nothing."""
    rows = database.collection(BudgetDefault)
    if limit is None:
        await rows.delete_one({"_id": ScopeKind.THREAD.value}, session=session)
    else:
        await rows.update_one({"_id": ScopeKind.THREAD.value}, {"$set": {"limit": limit}}, upsert=True, session=session)
