"""The answer of every sizing method: a suggested leverage, bounded by a cap and by the venue's rules, rounded down.

A method suggests the notional of a position as a multiple of the account's equity. What follows is the same for all
of them: the declared leverage cap, whole steps of the venue, its minimum. A linear contract of size s at price p has
the notional s × p in the account's currency; an inverse one has s ÷ p, in its coin, which is the account's currency.

Numbers are fractions from the inputs to the last step, because a quotient that is rounded before it is cut to whole
steps can lose a step: 0.03 ÷ 0.01 must be three steps.
"""

from __future__ import annotations

from collections.abc import Sequence
from decimal import Decimal
from fractions import Fraction
from typing import Final

from msgspec import Struct
from msgspec.structs import replace

from killswitch.model.magnitude import sane
from killswitch.model.snapshot import Instrument

GIVEN: Final = "given"
"""The source of an input that the caller wrote."""


class SizingError(ValueError):
    """A request that no size can answer: a stop beyond the entry, a cap of zero, a matrix that is no correlation."""


class SizingInput(Struct, frozen=True):
    """A number that a size was computed from; `value` None is unknown, and `unknown` says why.

    `age`: seconds since the source read it; None for a given number.
    """

    name: str
    value: Decimal | None
    source: str = GIVEN
    age: float | None = None
    unknown: str | None = None


class Suggestion(Struct, frozen=True):
    """What a method suggests: notional ÷ equity, at least 0; None is unknown, and `unknown` says why.

    `bound`: what the method itself was bound by. `is_veto`: it suggests zero because the record shows no edge.
    `details`: further results of the method, each a name and a text.
    """

    method: str
    leverage: Fraction | None
    bound: str
    inputs: tuple[SizingInput, ...] = ()
    unknown: str | None = None
    is_veto: bool = False
    details: tuple[tuple[str, str], ...] = ()


class SizedMarket(Struct, frozen=True):
    """The market that a position is sized in, and the account that pays for it.

    `others`: gross notional of the account's other positions, in its currency; None: not given, and the cap counts
    this position alone. `rules` without a step or a contract size make the size unknown.
    """

    equity: SizingInput
    price: SizingInput
    rules: Instrument
    leverage_cap: Decimal
    others: SizingInput | None = None


class Size(Struct, frozen=True):
    """The size of the whole position in one market; `contracts` None is unknown, and `unknown` says why.

    `quantity` is in base units, None for an inverse contract at an unknown price; `notional` in the account's currency,
    `leverage` notional ÷ equity.
    """

    method: str
    symbol: str
    contracts: Decimal | None
    quantity: Decimal | None
    notional: Decimal | None
    leverage: Decimal | None
    bound_by: str
    inputs: tuple[SizingInput, ...]
    unknown: str | None = None
    details: tuple[tuple[str, str], ...] = ()


def given(name: str, value: Decimal | None) -> SizingInput:
    """An input that the caller wrote. SizingError for a number that is not sane."""
    if value is not None and not sane(value):
        raise SizingError(f"{name} is not a usable number: write one below 1e30")
    return SizingInput(name, value, unknown=None if value is not None else f"{name} is not given")


def unknown_suggestion(method: str, why: str, *inputs: SizingInput) -> Suggestion:
    """A suggestion of unknown size."""
    return Suggestion(method, None, "", inputs, why)


def bounded(suggestion: Suggestion, market: SizedMarket) -> Size:
    """The size of a suggestion within the leverage cap, in whole steps of the venue and at least its minimum.

    SizingError for a cap, a price or rules that are not above zero. Equity at or below zero gives zero; unknown
    equity, price, contract size or step give unknown.
    """
    require_positive("leverage cap", market.leverage_cap)
    inputs = (*suggestion.inputs, market.equity, market.price, given("leverage cap", market.leverage_cap))
    inputs = inputs if market.others is None else (*inputs, market.others)
    if market.equity.value is not None and market.equity.value <= 0:
        return _zero(suggestion, market, "equity is not above zero", inputs)
    why = suggestion.unknown or _missing(market)
    if why is not None or suggestion.leverage is None:
        return _unknown(suggestion, market, why or "the method gives no number", inputs)
    if suggestion.leverage <= 0:
        return _zero(suggestion, market, suggestion.bound, inputs)
    equity = Fraction(_known(market.equity.value))
    room = equity * Fraction(market.leverage_cap)
    if market.others is not None:
        room -= Fraction(_known(market.others.value))
    wanted, bound = suggestion.leverage * equity, suggestion.bound
    if wanted > room:
        wanted, bound = max(room, Fraction(0)), "leverage cap"
    return _in_steps(suggestion, market, (wanted, bound), inputs)


def share_gross(suggestions: Sequence[Suggestion], cap: Decimal) -> tuple[Suggestion, ...]:
    """The suggestions of one book, scaled down together where their gross would exceed the cap.

    `cap` is what other positions leave of the leverage cap, at least 0.
    """
    gross = sum((each.leverage for each in suggestions if each.leverage is not None), Fraction(0))
    if gross <= Fraction(cap):
        return tuple(suggestions)
    factor = Fraction(cap) / gross
    return tuple(
        replace(each, leverage=each.leverage * factor, bound="leverage cap") if each.leverage else each
        for each in suggestions
    )


def require_positive(name: str, value: Decimal) -> None:
    """SizingError unless a number is sane and above zero."""
    if not sane(value) or value <= 0:
        raise SizingError(
            f"the {name} is {value:f}: write a number above zero" if sane(value) else f"{name}: no number"
        )


def as_fraction(value: float) -> Fraction:
    """The shortest decimal form of a float, exactly. ValueError unless it is finite."""
    return Fraction(repr(float(value)))


def _missing(market: SizedMarket) -> str | None:
    """Why a size in this market cannot be known; None if it can."""
    for each in (market.equity, market.price, market.others):
        if each is not None and each.value is None:
            return each.unknown or f"{each.name} is unknown"
    require_positive("price", _known(market.price.value))
    for name, value in (("contract size", market.rules.contract_size), ("step", market.rules.amount_step)):
        if value is None:
            return f"the {name} of {market.rules.symbol} is unknown"
        require_positive(name, value)
    return None


def _known(value: Decimal | None) -> Decimal:
    if value is None:
        raise SizingError("a number that must be known is unknown")
    return value


def _in_steps(
    suggestion: Suggestion, market: SizedMarket, wanted: tuple[Fraction, str], inputs: tuple[SizingInput, ...]
) -> Size:
    """The notional in whole steps of contracts, rounded down; zero below the venue's minimum."""
    rules, price, (notional, bound) = market.rules, Fraction(_known(market.price.value)), wanted
    face, step = Fraction(_known(rules.contract_size)), _known(rules.amount_step)
    value = face / price if rules.inverse else face * price
    contracts = notional / value // Fraction(step) * step
    if contracts <= 0:
        return _zero(suggestion, market, f"below one step of the venue, {step:f}" if notional else bound, inputs)
    if rules.min_amount is not None and contracts < rules.min_amount:
        return _zero(suggestion, market, f"below the venue's minimum of {rules.min_amount:f} contracts", inputs)
    in_quote = Fraction(contracts) * (face if rules.inverse else value)
    if rules.min_notional is not None and in_quote < Fraction(rules.min_notional):
        return _zero(suggestion, market, f"below the venue's minimum notional of {rules.min_notional:f}", inputs)
    total = Fraction(contracts) * value
    details = suggestion.details
    if rules.max_amount is not None and contracts > rules.max_amount:
        details = (*details, ("largest order", f"{rules.max_amount:f} contracts: the size takes several orders"))
    return Size(
        suggestion.method, rules.symbol, contracts, _decimal(Fraction(contracts) * (value if rules.inverse else face)),
        _decimal(total), _decimal(total / Fraction(_known(market.equity.value))), bound, inputs, details=details,
    )  # fmt: skip


def _decimal(value: Fraction) -> Decimal:
    return Decimal(value.numerator) / Decimal(value.denominator)


def _zero(suggestion: Suggestion, market: SizedMarket, bound: str, inputs: tuple[SizingInput, ...]) -> Size:
    zero = Decimal(0)
    symbol, method = market.rules.symbol, suggestion.method
    return Size(method, symbol, zero, zero, zero, zero, bound, inputs, details=suggestion.details)


def _unknown(suggestion: Suggestion, market: SizedMarket, why: str, inputs: tuple[SizingInput, ...]) -> Size:
    symbol, method = market.rules.symbol, suggestion.method
    return Size(method, symbol, None, None, None, None, "", inputs, why, suggestion.details)
