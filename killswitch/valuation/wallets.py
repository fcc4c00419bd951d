"""The wallet of an account: what it holds of each asset, without unrealised profit. All money is Decimal."""

from __future__ import annotations

from decimal import Decimal

from killswitch.model.magnitude import sane
from killswitch.model.snapshot import AccountSnapshot
from killswitch.valuation.position_measures import HOLDINGS, ZERO, base_of, sign


def holdings(account: AccountSnapshot) -> dict[str, tuple[Decimal, Decimal]]:
    """Asset → (amount, price) of every priced asset except the account's own currency.

    The amount excludes unrealised profit if the venue reports it separately. On a market of holdings, a position
    without a balance is a holding, too.
    """
    found: dict[str, tuple[Decimal, Decimal]] = {}
    for balance in account.balances or ():
        if balance.asset == account.currency or balance.price is None or not sane(balance.price):
            continue
        amount = balance.wallet if balance.wallet is not None else balance.equity
        amount = balance.amount if amount is None else amount
        if sane(amount):
            found[balance.asset] = (amount, balance.price)
    if account.market in HOLDINGS:
        held = {balance.asset for balance in account.balances or ()}
        for position in account.positions or ():
            asset = base_of(position.symbol)
            if asset not in held and position.mark_price is not None and sane(position.mark_price):
                amount, _ = found.get(asset, (ZERO, ZERO))
                found[asset] = (amount + position.contracts * sign(position), position.mark_price)
    return found


def single_wallet(account: AccountSnapshot) -> Decimal | None:
    """The wallet of an account that holds only its own currency; None for any other account, and if unknown."""
    if account.unrealized is None or account.balances is None or len(account.balances) != 1:
        return None
    balance = account.balances[0]
    known = balance.asset == account.currency and balance.wallet is not None and sane(balance.wallet)
    return balance.wallet if known else None


def wallets(account: AccountSnapshot) -> list[tuple[str, Decimal, Decimal]] | None:
    """(asset, wallet, price) of every balance if all of them and unrealised profit are reported, else None."""
    if not account.balances or account.unrealized is None:
        return None
    found = []
    for balance in account.balances:
        price = Decimal(1) if balance.asset == account.currency else balance.price
        if balance.wallet is None or price is None or not (sane(balance.wallet) and sane(price)):
            return None
        found.append((balance.asset, balance.wallet, price))
    return found
