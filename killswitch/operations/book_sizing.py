"""Sizes of several markets together: risk parity at a volatility target, and Kelly of correlated markets.

The request is the second form of the body of `POST /v1/size`. A correlation is required of each pair: a pair that is
left out is not uncorrelated.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from decimal import Decimal
from fractions import Fraction
from itertools import combinations

import msgspec
from msgspec import Struct
from msgspec.structs import replace

from killswitch.model.snapshot import AccountSnapshot, Side
from killswitch.operations.sizing import FixedNotional, SizeRequest, other_positions, size_of, sized_market
from killswitch.risk.covariance import Matrix
from killswitch.risk.sizing.answer import (
    Size,
    SizedMarket,
    SizingError,
    SizingInput,
    Suggestion,
    as_fraction,
    bounded,
    given,
    require_positive,
    share_gross,
)
from killswitch.risk.sizing.kelly import NO_EDGE, fraction_details, kelly_weights, require_kelly_fraction
from killswitch.risk.sizing.risk_parity import covariance_of, risk_parity
from killswitch.risk.sizing.volatility_target import book_factor

KELLY_OF_BOOK = "book-kelly"
RISK_PARITY = "risk-parity"


class RiskParity(Struct, frozen=True, tag="risk-parity", tag_field="method", forbid_unknown_fields=True):
    """Every market has its budget of the variance, and the book has the volatility `target` of a year."""

    target: Decimal


class BookKelly(Struct, frozen=True, tag="book-kelly", tag_field="method", forbid_unknown_fields=True):
    """A `fraction` of S⁻¹(μ − rate) over weights that are not negative; `rate` of a year."""

    fraction: Decimal
    rate: Decimal


class BookMarket(Struct, frozen=True, forbid_unknown_fields=True):
    """One market of the book: `volatility` and `mean` return of a year, of the price; `budget` in any scale."""

    symbol: str
    side: Side
    volatility: Decimal
    mean: Decimal | None = None
    budget: Decimal = Decimal(1)
    price: Decimal | None = None
    contract_size: Decimal | None = None
    inverse: bool | None = None
    step: Decimal | None = None
    min_amount: Decimal | None = None
    min_notional: Decimal | None = None


class BookRequest(Struct, frozen=True, forbid_unknown_fields=True):
    """Sizes of several markets of one account; `correlations`: two symbols and their correlation, of each pair."""

    markets: tuple[BookMarket, ...]
    size_by: RiskParity | BookKelly
    leverage_cap: Decimal
    correlations: tuple[tuple[str, str, Decimal], ...] = ()
    account: str | None = None
    equity: Decimal | None = None
    others: Decimal | None = None


class _Form(Struct, frozen=True):
    """Tells the two forms of a request apart."""

    markets: object = None


def decode_request(body: bytes) -> SizeRequest | BookRequest:
    """The request in a JSON text, with numbers as numbers or decimal strings. SizingError for anything else."""
    try:
        if msgspec.json.Decoder(_Form).decode(body).markets is None:
            return msgspec.json.Decoder(SizeRequest).decode(body)
        return msgspec.json.Decoder(BookRequest).decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise SizingError(f"the request cannot be read: {error}") from error


def sizes_of(request: SizeRequest | BookRequest, account: AccountSnapshot | None, now: datetime) -> tuple[Size, ...]:
    """The sizes that a request asks for: one, or one for each market of a book.

    `account`: as read at or before `now`; None where the request names none. SizingError for a request that has no
    answer; what is unknown is in the answers.
    """
    if isinstance(request, SizeRequest):
        return (size_of(request, account, now),)
    _require_markets(request)
    markets = [_market(request, each, account, now) for each in request.markets]
    equity, others = markets[0].equity, _others(request, account, now)
    inputs = _inputs(request, others)
    cap = request.leverage_cap
    require_positive("leverage cap", cap)
    if others is not None and others.value is None:
        why = others.unknown or "other positions are unknown"
        suggestions = [Suggestion(_method(request), None, "", inputs, why) for _ in markets]
    elif others is not None and others.value and equity.value and equity.value > 0:
        cap = max(Decimal(0), cap - others.value / equity.value)
        suggestions = _suggested(request, inputs)
    else:
        suggestions = _suggested(request, inputs)
    return tuple(bounded(each, it) for each, it in zip(share_gross(suggestions, cap), markets, strict=True))


def _suggested(request: BookRequest, inputs: tuple[SizingInput, ...]) -> list[Suggestion]:
    """The leverage of each market before the cap; all unknown where the method has no answer."""
    markets, by = request.markets, request.size_by
    matrix = covariance_of(
        [float(each.volatility) for each in markets], _correlations(request),
        [1 if each.side == "long" else -1 for each in markets],
    )  # fmt: skip
    found, why, bound = _by_risk(by, markets, matrix) if isinstance(by, RiskParity) else _by_growth(by, markets, matrix)
    details = fraction_details(by.fraction) if isinstance(by, BookKelly) else ()
    method = _method(request)
    if found is None:
        return [Suggestion(method, None, "", inputs, why) for _ in markets]
    return [
        Suggestion(method, each, bound if each else NO_EDGE, inputs, is_veto=not each, details=details)
        for each in found
    ]


def _by_risk(
    by: RiskParity, markets: Sequence[BookMarket], covariance: Matrix
) -> tuple[list[Fraction] | None, str, str]:
    """Leverages, why there are none, and what bounds them."""
    weights = risk_parity(covariance, [float(each.budget) for each in markets])
    if weights is None:
        return None, "no book of these markets shares its risk as budgeted: their risks cancel, or one has none", ""
    factor = book_factor(by.target, weights, covariance)
    if factor is None:
        return None, "the book has no net risk that could reach the target", ""
    return [as_fraction(each) * factor for each in weights], "", "risk parity at the volatility target"


def _by_growth(
    by: BookKelly, markets: Sequence[BookMarket], covariance: Matrix
) -> tuple[list[Fraction] | None, str, str]:
    """Leverages, why there are none, and what bounds them."""
    require_kelly_fraction(by.fraction)
    excess = []
    for each in markets:
        if each.mean is None:
            return None, f"the mean return of {each.symbol} is not given", ""
        excess.append(float((each.mean - by.rate) * (1 if each.side == "long" else -1)))
    weights = kelly_weights(excess, covariance)
    if weights is None:
        return None, "the covariance is singular: two markets are the same, or one has no volatility", ""
    return [as_fraction(each) * Fraction(by.fraction) for each in weights], "", "fraction of Kelly"


def _correlations(request: BookRequest) -> Matrix:
    """The matrix of correlations; SizingError for a pair that is missing, there twice, or of an unknown symbol."""
    symbols = [each.symbol for each in request.markets]
    found: dict[frozenset[str], Decimal] = {}
    for one, other, value in request.correlations:
        pair = frozenset((one, other))
        if len(pair) < 2 or not pair <= set(symbols) or pair in found:
            raise SizingError(f"the correlation of {one} and {other} is not of two markets of the book, or there twice")
        found[pair] = value
    for one, other in combinations(symbols, 2):
        if frozenset((one, other)) not in found:
            raise SizingError(f"the correlation of {one} and {other} is missing: write one, 0 where they have none")
    return [[1.0 if one == other else float(found[frozenset((one, other))]) for other in symbols] for one in symbols]


def _require_markets(request: BookRequest) -> None:
    """SizingError for a book without markets, a symbol that is there twice, and a number that is not sane."""
    symbols = [each.symbol for each in request.markets]
    if not symbols or len(set(symbols)) < len(symbols):
        raise SizingError("a book has at least one market, and each symbol once")
    for each in request.markets:
        for name in ("volatility", "mean", "budget"):
            given(f"{name} of {each.symbol}", getattr(each, name))
    for one, other, value in request.correlations:
        given(f"correlation of {one} and {other}", value)


def _market(request: BookRequest, market: BookMarket, account: AccountSnapshot | None, now: datetime) -> SizedMarket:
    single = SizeRequest(
        market.symbol, FixedNotional(Decimal(1)), request.leverage_cap, request.account, request.equity, market.price,
        None, market.contract_size, market.inverse, market.step, market.min_amount, market.min_notional,
    )  # fmt: skip
    found = sized_market(single, account, now)
    return replace(found, price=replace(found.price, name=f"price of {market.symbol}"), others=None)


def _others(request: BookRequest, account: AccountSnapshot | None, now: datetime) -> SizingInput | None:
    """The gross notional of positions outside of the book; None where nothing is known to be there."""
    if request.others is not None:
        return given("other positions", request.others)
    return None if account is None else other_positions(account, [each.symbol for each in request.markets], now)


def _inputs(request: BookRequest, others: SizingInput | None) -> tuple[SizingInput, ...]:
    volatilities = [given(f"volatility of {each.symbol}", each.volatility) for each in request.markets]
    pairs = [given(f"correlation of {one} and {other}", value) for one, other, value in request.correlations]
    return (*volatilities, *pairs, *(() if others is None else (others,)))


def _method(request: BookRequest) -> str:
    return RISK_PARITY if isinstance(request.size_by, RiskParity) else KELLY_OF_BOOK
