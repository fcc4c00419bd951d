"""The cancels of a scope: which orders they name, and with what reason."""

from __future__ import annotations

from decimal import Decimal

from killswitch.model.effects import Cancel, Cancels
from killswitch.model.snapshot import Order
from killswitch.planning.actions.cancel_orders import cancels, most_cancels
from killswitch.valuation.scope_view import ScopeView
from tests.worlds import account, position

BTC = "BTC/USDT:USDT"


def test_a_cancel_names_its_account_symbol_and_order() -> None:
    """Entries where any cancel is declared; the rest only with `all`. Of two sales of a long of 3, the second flips."""
    sizes = (("o1", "buy", 1), ("o2", "sell", 3), ("o3", "sell", 2))
    orders = [Order(id=name, symbol=BTC, side=side, amount=Decimal(size)) for name, side, size in sizes]  # type: ignore[arg-type]  # literal
    held = account("1000", [position(BTC, "long", contracts="3")], orders=orders)
    view = ScopeView(0, True, [held], {}, None)
    entry, exceeding = Cancel("main", BTC, "o1", "entry"), Cancel("main", BTC, "o3", "entry")
    assert cancels(view, "entry") == Cancels((entry, exceeding))
    assert cancels(view, "all") == Cancels((entry, Cancel("main", BTC, "o2", "all"), exceeding))
    assert (most_cancels(held, "entry").first, most_cancels(held, "entry").last) == ({0: BTC, 2: BTC}, {})
    assert (most_cancels(held, "all").first, most_cancels(held, "all").last) == ({0: BTC, 2: BTC}, {1: BTC})
