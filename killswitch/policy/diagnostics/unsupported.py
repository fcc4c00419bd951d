"""What people ask for and cannot declare yet, with what comes nearest: for diagnostics and the page of the reference.

An entry is deleted with the change that makes it possible; a test fails while the catalogue or a schema has its name.
"""

from __future__ import annotations

from typing import Literal

from msgspec import Struct

PAGE = "docs/reference/not-yet.md"

Subject = Literal["signal", "scope", "action", "key", "document"]


class Unsupported(Struct, frozen=True):
    """`names`: what it would be called, and other words for it. `wanted` and `nearest` complete a sentence."""

    subject: Subject
    names: tuple[str, ...]
    wanted: str
    nearest: str


def _entry(subject: Subject, names: str, wanted: str, nearest: str) -> Unsupported:
    return Unsupported(subject, tuple(names.split()), wanted, nearest)


UNSUPPORTED: tuple[Unsupported, ...] = (
    _entry(
        "signal",
        "equity.expected_move equity.var equity.cvar risk.var var cvar expected_move",
        "an expected move or a value at risk of the book",
        "`exposure.leverage`; the ranking `component-risk` uses a covariance to select what is closed",
    ),
    _entry(
        "signal",
        "trades.count trades.losing_streak trades.profit trades.drawdown trades.since_close trades.losses "
        "losing_streak",
        "closed trades: their number, streaks of losses, or time since the last",
        "`equity.drawdown`, which also sees losses that are still open",
    ),
    _entry(
        "signal",
        "positions.adl_rank fills.closed_by_venue",
        "deleveraging by the venue, its rank or what it closed",
        "`exposure.margin_ratio`, which rises before a liquidation",
    ),
    _entry(
        "signal",
        "exposure.margin_ratio_change exposure.turnover turnover",
        "a change of the margin ratio, or the turnover, over a window",
        "`exposure.margin_ratio` and `exposure.gross`, as they are now",
    ),
    _entry(
        "signal",
        "hedge.broken ownership.unowned_orders ownership.unowned_share",
        "a broken hedge, or positions and orders that no strategy owns",
        "`exposure.net` of the scope",
    ),
    _entry(
        "signal",
        "market.volatility market.volatility_ratio market.move market.jump market.correlation market.atr "
        "price.change volatility atr correlation",
        "the volatility, the move or the correlation of a market",
        "`equity.drawdown`: what the move costs the book, whichever market it is",
    ),
    _entry(
        "signal",
        "market.spread market.depth market.state market.crossed spread depth",
        "the spread, the depth or the state of a market",
        "none in triggers; a close waits for a market that is closed, and an Unwinding bounds the prices of its orders",
    ),
    _entry(
        "signal",
        "market.price_age market.price_gap market.venue_gap market.quorum market.peg_deviation",
        "stale, diverging or unpegged prices",
        "`corroborate: true` on the stage, which takes a second look at the prices before it fires; "
        "`venue.age` for silence",
    ),
    _entry(
        "signal",
        "venue.latency_quantile venue.clock_skew venue.limit_headroom",
        "a quantile of latency, a clock's skew, or what is left of a rate limit",
        "`venue.latency` and `venue.error_rate`, of the last snapshot",
    ),
    _entry(
        "signal",
        "orders.unconfirmed orders.rejected orders.rate orders.largest_share",
        "the number, rate, size or rejection of orders",
        "`exposure.gross` and `exposure.leverage`, once they are filled",
    ),
    _entry(
        "signal",
        "heartbeat.age heartbeat bot.alive runner.tick_lateness",
        "the heartbeat of a bot",
        "`venue.age` for a silent venue; a `DeadMan` is the venue's own timer against a silent runner",
    ),
    _entry(
        "signal",
        "alert.active flag.set",
        "an alert or a flag of another program",
        "`ksctl lock` and `ksctl close`, which another program may start",
    ),
    _entry(
        "signal",
        "clock.within time.hour clock.hour",
        "the time of day",
        "a `variant` of the policy, selected when the runner starts",
    ),
    _entry(
        "scope",
        "strategy bot tag",
        "a stage machine for each strategy of one account",
        "a sub-account for each strategy, and `each: account`",
    ),
    _entry(
        "scope",
        "symbol position asset group",
        "a stage machine for each symbol, position or group",
        "`each: account`, with `close: {symbols: […], …}` or `close: {where: …, where_unknown: …, …}`",
    ),
    _entry(
        "action",
        "reduce reduce_to deleverage target_leverage",
        "reducing to a leverage or a gross",
        "`close` with a `fraction`, on a trigger with `exposure.leverage`; it fires again after its cooldown",
    ),
    _entry(
        "action",
        "neutralise neutralize delta_neutral",
        "closing as little as makes the book neutral",
        "`close: {side: both, rank: component-risk, spread: by_rank, …}`, which closes what carries the risk",
    ),
    _entry(
        "action",
        "place_stops stop_loss stop stops trailing_stop",
        "stop orders at the venue",
        "a trigger with `close: {where: 'position.margin_loss >= 0.5', where_unknown: keep, …}`, while the "
        "runner lives",
    ),
    _entry(
        "action",
        "top_up_margin add_margin transfer withdraw",
        "moving money between accounts",
        "`close` with `all_if: 'position.liquidation_distance <= 0.03'`, which ends the same alarm with less risk",
    ),
    _entry(
        "action",
        "webhook exec run call script command http",
        "starting a program or calling a URL",
        "`notify` of the stage, and a `NotificationRoute` to `json://HOST:PORT`",
    ),
    _entry(
        "action",
        "pause pause_bot stop_bot halt disable_trading",
        "stopping a bot",
        "`lock_trading`: the bot reads the lock before each order",
    ),
    _entry(
        "key",
        "hours schedule active_hours between weekdays timezone calendar",
        "a rule for certain hours or days",
        "a `variant` of the policy, selected when the runner starts",
    ),
    _entry(
        "key",
        "disabled enabled disable mute snooze silence until",
        "a rule that is switched off for a time",
        "`mode: observe`, which records what the policy would have done",
    ),
    _entry(
        "key",
        "recovery ramp resume reopen",
        "trading again in steps after a stage",
        "`reset: {auto: {when: …, for: …}}`, which ends the stage and its lock at once",
    ),
    _entry(
        "key",
        "warn_at warning warning_at warn",
        "a warning at a part of the threshold",
        "a stage of a lower level with `actions: []` and `notify`, as in `policies/circuit-breaker`",
    ),
    _entry(
        "key",
        "quantile adaptive times dynamic multiplier",
        "a threshold computed from history",
        "a fixed threshold, and `variants` for another regime",
    ),
    _entry(
        "key",
        "take_profit profit_target trailing",
        "a limit on profit",
        "a trigger on `equity.profit`, or on `equity.given_back` and `equity.best_profit`",
    ),
    _entry(
        "key",
        "max_per_day max_trips max_fires repeat max_closes",
        "a limit on how often a stage fires",
        "`cooldown`, or `reset: manual`, with which it fires once until a person resets it",
    ),
    _entry(
        "key",
        "max_position max_notional max_leverage max_order_size limits",
        "a limit that an order must pass before it is sent",
        "a trigger on `exposure.*` with `lock_trading` and `close`, which acts after the order",
    ),
    _entry(
        "key",
        "approval approve approvers require_approval",
        "a close that waits for somebody's approval",
        "`mode: observe`, and an operator's `ksctl close --dry-run --out FILE` with `ksctl apply FILE`",
    ),
    _entry(
        "document",
        "Limits Limit RiskLimit",
        "limits that an order must pass before it is sent",
        "a `Policy` with triggers on `exposure.*`, which acts after the order",
    ),
    _entry(
        "document",
        "HedgeGroup Hedge Pair",
        "legs that belong together across accounts",
        "`scope: {each: portfolio}` with `close: {side: both, …}`, which reduces all legs by the same part",
    ),
    _entry(
        "document",
        "CircuitBreaker Breaker",
        "a circuit breaker with states of its own",
        "a `Policy` as in `policies/circuit-breaker`",
    ),
    _entry(
        "document",
        "RecoveryPlan Ramp",
        "trading again in steps after a stage",
        "`reset: {auto: {when: …, for: …}}` of the stage",
    ),
    _entry(
        "document",
        "Strategy Bot",
        "which positions of an account belong to which strategy",
        "an `Account` for each strategy's sub-account",
    ),
    _entry(
        "document",
        "Calendar Schedule Silence MaintenanceWindow",
        "schedules and silences",
        "a `Session`, from whose open `equity.loss_since` counts; a `variant` of the policy, selected when the runner "
        "starts",
    ),
)


def nearest_of(written: str, *subjects: Subject) -> str | None:
    """The fix for a name that is known to be missing; None for any other."""
    word = written.lower().replace("-", "_")
    for entry in UNSUPPORTED:
        if entry.subject in subjects and word in (name.lower() for name in entry.names):
            return f"{entry.wanted} cannot be declared yet; nearest: {entry.nearest} ({PAGE})"
    return None
