"""The book before and after a close, and the value of an asset: sums by hand, unknown where no price is known."""

from __future__ import annotations

from decimal import Decimal

from msgspec.structs import replace

from killswitch.model.decision import Book, BookChange
from killswitch.model.snapshot import AccountSnapshot, Balance, Position
from killswitch.planning.orders.slices import Holdings, price_of, value_of
from killswitch.planning.stage_decision import book_change
from killswitch.planning.targets.ranking import RankingCandidate
from killswitch.valuation.scope_view import ScopeView
from tests.worlds import account, position

BTC, ETH = "BTC/USDT:USDT", "ETH/USDT:USDT"
UNKNOWN = Book(None, None, None)


def view(*accounts: AccountSnapshot) -> ScopeView:
    return ScopeView(0, True, accounts, {}, None)


def book(gross: str, net: str, ratio: str | None) -> Book:
    return Book(Decimal(gross), Decimal(net), None if ratio is None else Decimal(ratio))


def legs() -> list[Position]:
    return [
        position(BTC, "long", contracts="4", mark_price="100", notional="400"),
        position(ETH, "short", contracts="2", mark_price="50", notional="100"),
    ]


def test_the_book_is_summed_before_and_after_and_margin_follows_gross() -> None:
    """Long 400, short 100, 60 of margin on 1000: the long cut to a quarter leaves 200 gross, level, 24 of margin."""
    scope = view(account("1000", legs(), maintenance_margin="60"))
    left = {("main", BTC, "long"): Decimal(1)}
    assert book_change(scope, left) == BookChange(book("500", "300", "0.06"), book("200", "0", "0.024"))


def test_margins_of_several_accounts_are_added_up_over_their_equity() -> None:
    """60 and 40 on 1000 and 1000 is a twentieth; where one account's is not given, the ratio is unknown."""
    one = account("1000", legs(), maintenance_margin="60")
    other = account("1000", [position(BTC, "long", notional="100")], name="other", maintenance_margin="40")
    whole = book("600", "400", "0.05")
    assert book_change(view(one, other), {}) == BookChange(whole, whole)
    without_margin = replace(other, maintenance_margin=None)
    assert book_change(view(one, without_margin), {}).before == book("600", "400", None)


def test_without_positive_equity_the_margin_ratio_is_unknown_and_gross_is_known() -> None:
    """Equity at zero and below; at 0.5 the ratio is known."""
    for equity in ("0", "-10"):
        scope = view(account(equity, legs(), maintenance_margin="60"))
        assert book_change(scope, {}).before == book("500", "300", None)
    least = view(account("0.5", legs(), maintenance_margin="60"))
    assert book_change(least, {}).before == book("500", "300", "120")


def test_an_empty_book_has_a_margin_ratio_of_zero() -> None:
    """Nothing held and 0 of margin: all zero, before and after."""
    nothing = book("0", "0", "0")
    assert book_change(view(account("1000", [], maintenance_margin="0")), {}) == BookChange(nothing, nothing)


def test_a_scope_that_cannot_be_read_has_an_unknown_book() -> None:
    """Before and after; and so has a scope with a position of unknown value."""
    down = account("1000", legs(), quality="down", reason="timeout")
    assert book_change(view(down), {}) == BookChange(UNKNOWN, UNKNOWN)
    assert book_change(view(account("1000", [position(BTC, "long")])), {}) == BookChange(UNKNOWN, UNKNOWN)


def spot(*positions: Position, balances: tuple[Balance, ...] = ()) -> AccountSnapshot:
    return replace(account("1000", positions, market="spot"), balances=balances)


def holding(held: Position, value: str | None, of: AccountSnapshot) -> RankingCandidate:
    return RankingCandidate(of, held, None if value is None else Decimal(value), None, None, None, None, None)


def test_a_unit_of_the_accounts_own_currency_is_one() -> None:
    """Whatever price its balance has."""
    own = spot(balances=(Balance("USDT", Decimal(5), price=Decimal("0.98")),))
    assert value_of("USDT", own, Holdings.of(view(own))) == 1


def test_an_asset_is_valued_at_the_price_of_its_balance_where_that_is_a_price() -> None:
    """The asset's first balance with a price above zero counts; another asset's price, 0 and a missing one do not."""
    balances = (
        Balance("ETH", Decimal(1), price=Decimal(50)),
        Balance("BTC", Decimal(1)),
        Balance("BTC", Decimal(1), price=Decimal(0)),
        Balance("BTC", Decimal(1), price=Decimal("NaN")),
        Balance("BTC", Decimal(1), price=Decimal(100)),
    )
    own = spot(balances=balances)
    assert value_of("BTC", own, Holdings.of(view(own))) == 100
    assert value_of("SOL", own, Holdings.of(view(own))) is None
    assert value_of("BTC", spot(), Holdings.of(view(spot()))) is None


def test_the_price_on_another_market_is_the_value_divided_by_that_of_its_quote() -> None:
    """2 X worth 60 USDT, BTC at 100: 0.3 BTC each. Without the size, the value or the quote's value there is none."""
    held = position("X/USDT", "long", contracts="2", mark_price="30", notional="60")
    own = spot(held, position("BTC/USDT", "long", contracts="1", mark_price="100", notional="100"))
    scope = Holdings.of(view(own))
    assert price_of(holding(held, "60", own), "X/BTC", scope) == Decimal("0.3")
    assert price_of(holding(held, "60", own), "X/USDT", scope) == 30
    assert price_of(holding(held, None, own), "X/BTC", scope) is None
    assert price_of(holding(held, "60", own), "X/SOL", scope) is None
    assert price_of(holding(held, "60", own), "X", scope) is None
    nothing = replace(held, contracts=Decimal(0))
    assert price_of(holding(nothing, "60", own), "X/BTC", scope) is None


def test_a_value_from_a_mark_in_another_currency_is_not_used() -> None:
    """X against BTC at 0.3: without a notional of the account's own, 0.6 is no amount of USDT."""
    held = position("X/BTC", "long", contracts="2", mark_price="0.3")
    own = spot(held)
    assert price_of(holding(held, "0.6", own), "X/USDT", Holdings.of(view(own))) is None
    with_notional = replace(held, notional=Decimal(60))
    assert price_of(holding(with_notional, "60", own), "X/USDT", Holdings.of(view(own))) == 30
    plain = position("X/USDT", "long", contracts="2")
    assert price_of(holding(plain, "60", own), "X/USDT", Holdings.of(view(own))) == 30
