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
        "equity.var equity.cvar risk.var var cvar",
        "a value at risk of the book",
        "`equity.expected_move`, which is one standard deviation of it",
    ),
    _entry(
        "signal",
        "market.atr market.range atr",
        "the average true range of a market, which needs bars",
        "`market.volatility`, from prices sampled on a grid of time",
    ),
    _entry(
        "scope",
        "bot tag",
        "a stage machine for each bot of one account",
        "`each: strategy`, with a `Strategy` for each bot, or `each: label` for accounts",
    ),
    _entry(
        "scope",
        "position asset group",
        "a stage machine for each position, asset or group",
        "`each: symbol`, or `each: account` with `close: {symbols: […], …}`",
    ),
    _entry(
        "action",
        "place_stops stop_loss stop stops trailing_stop",
        "stop orders at the venue that a stage places",
        "a `CatastropheStop`, whose stops rest at the venue all the time; a trigger with `close: {where: "
        "'position.margin_loss >= 0.5', where_unknown: keep, …}`, while the runner lives",
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
        "resume reopen",
        "trading again in steps after a stage",
        "`kind: RecoveryPlan`, a document of its own, which names the policy",
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
        "`daily_cap` of a close, `at_most` of an automatic reset, or `reset: manual`, with which it fires once until a "
        "person resets it",
    ),
    _entry(
        "key",
        "max_position max_notional max_leverage max_order_size limits",
        "a limit inside a policy that an order must pass before it is sent",
        "a `Limits` document for the accounts; or a trigger on `exposure.*`, which acts after the order",
    ),
    _entry(
        "key",
        "approval approve approvers require_approval",
        "a close that waits for somebody's approval",
        "`mode: observe`, and an operator's `ksctl close --dry-run --out FILE` with `ksctl apply FILE`",
    ),
    _entry(
        "document",
        "Limit RiskLimit PositionLimit OrderLimit",
        "a document for each limit that an order must pass",
        "`kind: Limits`, one for all limits of an account",
    ),
    _entry(
        "document",
        "CircuitBreaker Breaker",
        "a document kind for circuit breakers",
        "`kind: Policy` with the key `breaker`",
    ),
    _entry(
        "document",
        "Ramp",
        "trading again in steps after a stage",
        "`kind: RecoveryPlan`",
    ),
    _entry(
        "document",
        "Bot",
        "which positions of an account belong to which bot",
        "a `Strategy` for each bot",
    ),
    _entry(
        "document",
        "Calendar Schedule MaintenanceWindow",
        "schedules of policies",
        "a `Session`, from whose open `equity.loss_since` counts; a `variant` of the policy, selected when the runner "
        "starts; for messages a `Silence`, and `mute_times` of a `NotificationTree`",
    ),
)


def nearest_of(written: str, *subjects: Subject) -> str | None:
    """The fix for a name that is known to be missing; None for any other."""
    word = written.lower().replace("-", "_")
    for entry in UNSUPPORTED:
        if entry.subject in subjects and word in (name.lower() for name in entry.names):
            return f"{entry.wanted} cannot be declared yet; nearest: {entry.nearest} ({PAGE})"
    return None
