"""The signal catalogue: every signal declared once, with type, unit, meaning, and what makes it unknown."""

from __future__ import annotations

from typing import Literal

from killswitch.model.record import Record, record

SignalType = Literal["number", "text"]
Unit = Literal["fraction", "money", "seconds", "milliseconds", "count", "ratio", "score", "source"]
Level = Literal["scope", "position"]
Measures = Literal["loss", "condition"]
"""A loss, or a condition of the book or the venue."""


@record
class SignalSpec(Record):
    """A signal as policies may use it.

    `level` says what it is a quantity of: the scope that a stage machine watches, or one position of it.
    Position signals may be used in `close.all_if` and rankings, not in triggers. `measures` says when the same level
    may fire again: on a `loss` only after a new loss, on a `condition` when it has been false and is true again.
    """

    name: str
    type: SignalType
    unit: Unit
    windowed: bool
    level: Level
    measures: Measures
    meaning: str
    partly_known: str
    unknown: str


_EQUITY_UNKNOWN = (
    "no account of the scope can be read (each is stale, malformed or down, or gives no equity), or one of them is "
    "not in the snapshot"
)
_DARK = "an account of several cannot be read: then it is bounded by what it held and by how far prices moved elsewhere"
_WINDOW_PARTLY = (
    "the window reaches back before the first observation, or holds a gap longer than max_gap: "
    "then it is at least what was seen, and at most 1"
)
_POSITIONS_UNKNOWN = "positions are unknown"

CATALOGUE: tuple[SignalSpec, ...] = (
    SignalSpec("equity.value", "number", "money", False, "scope", "loss",
               "Equity in the scope's currency, as the venue gives it.",
               _DARK, f"{_EQUITY_UNKNOWN}; accounts of a scope in different currencies, without a reference currency "
               "or a rate to it"),
    SignalSpec("equity.drawdown", "number", "fraction", True, "scope", "loss",
               "Fall of the unit value from its highest in the window: 1 − now ÷ highest; "
               "1 when equity is at or below zero.",
               f"{_WINDOW_PARTLY}; an unexplained change leaves two readings of the unit value open; {_DARK}",
               _EQUITY_UNKNOWN),
    SignalSpec("equity.drawdown_from_peak", "number", "fraction", False, "scope", "loss",
               "Fall of the unit value from its highest since the start or the last reset by hand.",
               f"an unexplained change leaves two readings of the unit value open; {_DARK}", _EQUITY_UNKNOWN),
    SignalSpec("equity.loss_from_start", "number", "fraction", False, "scope", "loss",
               "Fall of the unit value from what it was at the start of observation, or at the last reset by hand; "
               "0 when above it.",
               f"an unexplained change leaves two readings of the unit value open; {_DARK}", _EQUITY_UNKNOWN),
    SignalSpec("equity.unexplained", "number", "money", False, "scope", "condition",
               "Change of equity that no price, no trade and no row of the ledger explains, those of the last 48 h "
               "added up until they are explained, or an operator resets; below zero for a fall.",
               "never", f"{_EQUITY_UNKNOWN}; a position gives neither its P&L nor the prices to compute it"),
    SignalSpec("equity.unexplained_share", "number", "fraction", False, "scope", "condition",
               "The falls among what `equity.unexplained` adds up, as a part of what equity would be without them; 0 "
               "where there are none.",
               "never", f"{_EQUITY_UNKNOWN}; a position gives neither its P&L nor the prices to compute it"),
    SignalSpec("attribution.long_share", "number", "fraction", True, "scope", "loss",
               "The long side's part of what the losing sides lost, realised and unrealised, since the unit value "
               "was highest in the window.",
               "never", f"{_POSITIONS_UNKNOWN} at either end; the window is not complete; neither side lost"),
    SignalSpec("attribution.short_share", "number", "fraction", True, "scope", "loss",
               "The short side's part of what the losing sides lost, realised and unrealised, since the unit value "
               "was highest in the window.",
               "never", f"{_POSITIONS_UNKNOWN} at either end; the window is not complete; neither side lost"),
    SignalSpec("attribution.source", "text", "source", True, "scope", "loss",
               "LONG or SHORT where that side's share is at least two thirds, else MIXED.",
               "never", "the shares are unknown"),
    SignalSpec("exposure.gross", "number", "money", False, "scope", "condition",
               "Sum of the positions' absolute notionals.", "never", f"{_POSITIONS_UNKNOWN}, or a price is missing"),
    SignalSpec("exposure.net", "number", "money", False, "scope", "condition",
               "Long minus short notional.", "never", f"{_POSITIONS_UNKNOWN}, or a price is missing"),
    SignalSpec("exposure.leverage", "number", "ratio", False, "scope", "condition",
               "Gross notional ÷ equity; +∞ when equity is at or below zero and the book is not empty.",
               "never", f"{_POSITIONS_UNKNOWN}, a price is missing, or equity is unknown"),
    SignalSpec("exposure.largest_share", "number", "fraction", False, "scope", "condition",
               "The largest position's part of the gross notional; 0 for an empty book.",
               "never", f"{_POSITIONS_UNKNOWN}, or a price is missing"),
    SignalSpec("exposure.margin_ratio", "number", "ratio", False, "scope", "condition",
               "Maintenance margin ÷ equity; +∞ when equity is at or below zero and margin is in use.",
               "never", "maintenance margin or equity is unknown"),
    SignalSpec("venue.age", "number", "seconds", False, "scope", "condition",
               "How long before the snapshot's as_of the oldest account of the scope was observed. It goes on growing "
               "while an account cannot be read, over a restart too.",
               "an account was never observed: then it is at least the time since it is watched",
               "an account that can be read does not give observed_at"),
    SignalSpec("venue.latency", "number", "milliseconds", False, "scope", "condition",
               "The slowest account's latency.", "never", "latency is not given"),
    SignalSpec("venue.error_rate", "number", "fraction", False, "scope", "condition",
               "Errors and timeouts ÷ requests of this snapshot.", "never", "request counts are not given or zero"),
    SignalSpec("venue.malformed", "number", "count", False, "scope", "condition",
               "Answers of this snapshot that made no sense.", "never", "the count is not given"),
    SignalSpec("venue.consecutive_failures", "number", "count", False, "scope", "condition",
               "Scheduled snapshots in a row in which an account of the scope was not `ok`. One that a push calls for "
               "in between is not counted; where it is sound, the count begins anew.",
               "never", "never"),
    SignalSpec("position.pnl_delta", "number", "money", True, "position", "loss",
               "Change of the position's P&L, realised and unrealised, since the unit value was highest in the window.",
               "never", "the position's P&L is unknown at either end, or the window is not complete"),
    SignalSpec("position.loss", "number", "money", False, "position", "loss",
               "Current unrealised loss, as a positive number; 0 when in profit.", "never", "its P&L is unknown"),
    SignalSpec("position.liquidation_distance", "number", "fraction", False, "position", "condition",
               "Distance of the mark from the liquidation price ÷ mark; 0 at or beyond it.",
               "never", "mark or liquidation price is unknown"),
    SignalSpec("position.notional_share", "number", "fraction", False, "position", "condition",
               "Its part of the gross notional.", "never", "a price is missing"),
    SignalSpec("position.margin_loss", "number", "fraction", False, "position", "loss",
               "Current unrealised loss ÷ margin; 0 when in profit.", "never", "its P&L or margin is unknown"),
    SignalSpec("position.score", "number", "score", False, "position", "condition",
               "The stage's ranking score: 0 harmless, larger closes first.",
               "never", "never: a term that is unknown counts as the worst in the book"),
)  # fmt: skip

BY_NAME: dict[str, SignalSpec] = {spec.name: spec for spec in CATALOGUE}

TRIGGER_SIGNALS: dict[str, str] = {spec.name: spec.meaning for spec in CATALOGUE if spec.level == "scope"}
"""The signals that a trigger may watch → their meaning."""
