"""Budgets of tokens: read them, hold and settle tokens, set limits."""

from functools import partial

from auth.permissions import operators, overseers, readers, spenders
from graph import agents as agent_types
from graph.budgets import (
    ExtendReservationInput,
    ExtendReservationPayload,
    Reservation,
    ReserveTokensInput,
    ReserveTokensPayload,
    SetThreadBudgetInput,
    SetThreadBudgetPayload,
    SettleTokensInput,
    SettleTokensPayload,
    ThreadBudget,
    reservation_of,
    scope_of,
)
from graph.context import Info
from graph.language import pages
from graph.language.describe import object_type
from graph.language.guards import mutation, plain_unless_reader, query
from graph.language.pages import After, Connection, First
from graph.language.scalars import BigInt
from models.budgets import defaults, kept
from models.budgets.changing import done
from models.budgets.kept import ScopeKind
from models.budgets.ledger import Extend, Limit, Reserve, Settle


@object_type
class BudgetQueries:
    """What can be asked about budgets."""

    @query(allow=overseers)
    async def thread_budgets(self, first: First = None, after: After = None) -> Connection[ThreadBudget] | None:
        """List the budgets of threads, those first of which most is used; an agent's key finds its own by `threads`."""
        wanted = pages.asked("thread budgets", kept.HOTTEST, first=first, after=after)
        page = await kept.page(ScopeKind.THREAD, window=wanted.window)
        return wanted.connection(page, ThreadBudget.of, partial(kept.count, ScopeKind.THREAD))

    @query(allow=readers)
    async def default_thread_tokens(self, info: Info) -> BigInt:
        """Give the tokens that may be spent in a thread that is opened without a limit of its own.

        It is what the organism's file declares, else the setting DEFAULT_THREAD_TOKENS.
        """
        return BigInt(await defaults.thread_tokens(otherwise=info.context.services.default_thread_tokens))


@object_type
class BudgetMutations:
    """How tokens are held and settled, and limits are set."""

    @mutation(allow=spenders)
    async def reserve_tokens(self, info: Info, input: ReserveTokensInput) -> ReserveTokensPayload | None:
        """Hold tokens of a thread's budget, before a model is called; never more than there are, whoever asks at once.

        BUDGET_EXHAUSTED says `limit`, `spent` and `reserved` in its extensions. When no answer comes, or
        SERVICE_UNAVAILABLE, send it again with the same key. What is not settled in time is given back.
        """
        _tell_no_more(info)
        thread = await scope_of(info.context, input.thread)
        agent = await agent_types.key_of(input.agent, field="agent") if input.agent else None
        request = Reserve.of(
            thread,
            tokens=input.tokens,
            key=input.idempotency_key,
            lease_s=input.lease_seconds,
            agent=info.context.viewer.agent or agent,
        )
        services = info.context.services
        held = done(await services.commits.submit(services.budgets, request))
        return ReserveTokensPayload(reservation=Reservation.of(held.about), budget=ThreadBudget.of(held.budget))

    @mutation(allow=spenders)
    async def settle_tokens(self, info: Info, input: SettleTokensInput) -> SettleTokensPayload | None:
        """Say what was spent of a reservation; it counts once, however often it is sent, and also when it is late.

        It counts against the budget and is no usage: report an event too, naming the `reservation`, for that. The
        larger of the two then counts against the budget, whichever comes first.
        """
        _tell_no_more(info)
        request = Settle.of(
            await reservation_of(info.context, input.reservation),
            prompt_tokens=input.prompt_tokens,
            completion_tokens=input.completion_tokens,
        )
        services = info.context.services
        settled = done(await services.commits.submit(services.budgets, request))
        return SettleTokensPayload(reservation=Reservation.of(settled.about), budget=ThreadBudget.of(settled.budget))

    @mutation(allow=spenders)
    async def extend_reservation(self, info: Info, input: ExtendReservationInput) -> ExtendReservationPayload | None:
        """Hold the tokens of a call that takes long for longer; one that has expired cannot be extended."""
        _tell_no_more(info)
        reservation = await reservation_of(info.context, input.reservation)
        request = Extend.of(reservation, lease_s=input.lease_seconds)
        services = info.context.services
        held = done(await services.commits.submit(services.budgets, request))
        return ExtendReservationPayload(reservation=Reservation.of(held.about), budget=ThreadBudget.of(held.budget))

    @mutation(allow=operators)
    async def set_thread_budget(self, info: Info, input: SetThreadBudgetInput) -> SetThreadBudgetPayload | None:
        """Set how many tokens may be spent in a thread. A limit above what is spent reopens one that is EXHAUSTED."""
        request = Limit.of(await scope_of(info.context, input.thread), tokens=input.max_tokens)
        services = info.context.services
        limited = done(await services.commits.submit(services.budgets, request))
        return SetThreadBudgetPayload(budget=ThreadBudget.of(limited.budget))


def _tell_no_more(info: Info) -> None:
    """Refuse what would lead on from a budget to its thread and messages, for services that may not read.

    An agent's key takes part in its own threads, and is shown those alone, whatever its scopes.
    """
    if info.context.viewer.agent is None:
        for name in ("budget", "reservation"):
            plain_unless_reader(info, name)
