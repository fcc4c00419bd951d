"""Preconditions of a venue's dead-man timer: the venue's rules, and the book of the last snapshot."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from math import ceil

from killswitch.accounts.arming import ArmedAccount
from killswitch.accounts.plug_ins import AdapterError
from killswitch.graph.nodes import PolicySet, TimerRule
from killswitch.model.instant import SECOND
from killswitch.model.snapshot import AccountSnapshot, InstrumentState, Order, Position
from killswitch.model.venue import DeadManRule, is_ours
from killswitch.ratelimit.poll_cost import PolledAccount, TimerRefresh, poll_costs

CLOSED_TO_ORDERS: frozenset[InstrumentState] = frozenset({"cancel_only", "post_only"})
"""The states of an instrument before and after a maintenance of the venue."""


class TimerError(AdapterError):
    """A DeadMansSwitch needs something that a venue cannot do; the message has the place, the cause and the way out."""


def require_timers(policies: PolicySet, accounts: Mapping[str, ArmedAccount], interval: float, timeout: float) -> None:
    """TimerError if the timer of an armed account could not be started, or not be refreshed in time.

    `interval` and `timeout` in seconds: the time between two ticks, and how long a tick may wait for a venue.
    """
    refusals = [
        f"{rule.place.file}:{rule.place.line}:{rule.place.column}: DeadMansSwitch {rule.name}, account {name}: {why}"
        for rule in policies.timers
        for name in rule.accounts
        if name in accounts and accounts[name].armed
        for why in (*_refusals(rule, accounts[name], interval + timeout), *_excess(policies, accounts, name, interval))
    ]
    if refusals:
        raise TimerError("; ".join(refusals))


def _refusals(rule: TimerRule, account: ArmedAccount, slowest: float) -> Iterator[str]:
    timer = account.adapter.dead_man
    timeout, refresh = rule.timeout / SECOND, rule.refresh / SECOND
    if timer is None:
        yield f"venue {account.venue} has no timer that could be set; take the account out of the switch"
        return
    venue = timer.rule
    if venue.reach == "connection":
        yield (
            f"the timer of venue {account.venue} covers the orders of one connection only, so it would not cancel the "
            "orders of bots; take the account out of the switch"
        )
    if timeout < venue.shortest:
        yield f"the timer of venue {account.venue} runs for at least {venue.shortest:g} s; lengthen `timeout`"
    if venue.longest is not None and timeout > venue.longest:
        yield f"the timer of venue {account.venue} runs for at most {venue.longest:g} s; shorten `timeout`"
    if refresh + slowest >= timeout:
        yield (
            f"a tick may come {slowest:g} s late (--interval and --read-timeout), so that a refresh every {refresh:g} "
            f"s may miss a timeout of {timeout:g} s; lengthen `timeout`, or shorten one of the others"
        )


def _excess(policies: PolicySet, accounts: Mapping[str, ArmedAccount], name: str, interval: float) -> Iterator[str]:
    """A message for each limit whose share for polling has no room for both polls and refreshes."""
    rules = {each: rule for rule in policies.timers for each in rule.accounts}
    polled = []
    for each, account in accounts.items():
        rule, timer = rules.get(each), account.adapter.dead_man
        is_refreshed = rule is not None and account.armed and timer is not None
        refresh = TimerRefresh(timer.rule, rule.refresh / SECOND) if rule and timer and is_refreshed else None
        polled.append(PolledAccount(each, account.venue, account.adapter.traits, account.closing_share, refresh))
    for cost in poll_costs(polled, interval)[name]:
        if cost.refreshes and cost.too_fast:
            left = cost.for_reading - cost.refreshes
            longer = f"run with --interval {ceil(10 * cost.least) / 10:g}s, or " if left >= cost.a_reading > 0 else ""
            yield (
                f"polls every {interval:g} s and refreshes together take {cost.takes:,.0f} of {cost.limit} in "
                f"{cost.per:g} s, and {cost.for_reading:,} of {cost.allowed:,} are for reading, so that the timer may "
                f"go off; {longer}lengthen `refresh`, or lower closing_share"
            )


def is_known(account: AccountSnapshot) -> bool:
    """Whether the account's positions and orders are known."""
    return account.quality == "ok" and account.positions is not None and account.orders is not None


def unprotected_symbols(account: AccountSnapshot, venue: DeadManRule) -> tuple[str, ...] | None:
    """Symbols of positions that would lose protective orders if the timer fired; None if that is unknown.

    Protective are resting orders that are reduce-only or have a trigger, on the side that reduces the position. Orders
    that this program has sent to close a position are not protective; those with a trigger it has restored or placed to
    protect one.
    """
    if venue.takes_stops is False:
        return ()
    if not is_known(account):
        return None
    orders = [it for it in account.orders or () if it.trigger_price is not None or not is_ours(it.client_order_id)]
    held = [position for position in account.positions or () if position.contracts != 0]
    return tuple(dict.fromkeys(each.symbol for each in held if any(_protects(order, each) for order in orders)))


def unprotected_reason(symbols: Sequence[str], venue: DeadManRule) -> str:
    """Why a timer must not run while the positions in `bare` have protective orders."""
    may = "would" if venue.takes_stops else "may"
    why = f"it {may} cancel the protective orders of {', '.join(symbols)} and leave the position unprotected"
    return f"{why}; `accept_unprotected: true` would accept that"


def does_not_run(account: str, why: str) -> str:
    """The message about a timer that must not run."""
    return f"the dead-man timer of account {account} does not run: {why}"


def _protects(order: Order, position: Position) -> bool:
    if order.symbol != position.symbol or order.position_side not in (None, position.side):
        return False
    waits = order.reduce_only is True or order.trigger_price is not None
    return waits and (order.side == "sell") == (position.side == "long")


def cancellable(account: AccountSnapshot) -> tuple[str, ...] | None:
    """Symbols with a resting order; None if that is unknown."""
    return tuple(sorted({order.symbol for order in account.orders or ()})) if is_known(account) else None
