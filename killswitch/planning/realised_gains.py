"""What the fills of each account have realised, by asset: as the venue states it, less their fees.

Funding, interest and other rows are not in it, so that a part of the book is comparable with a strategy, in whose
profit they are not either. Amounts are in the account's currency, and count from its first snapshot, whose own fills
precede it. Unknown while the account or its fills are, or where the venue does not state until when they are complete.
A fill that may have reduced a position and does not state what it made, or its fee, makes its asset unknown until an
operator's reset.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from decimal import Decimal

from msgspec import MsgspecError, Struct
from msgspec import json as msgjson

from killswitch.model.instant import HOUR, to_micros
from killswitch.model.magnitude import sane
from killswitch.model.snapshot import AccountSnapshot, Event, Fill, Position, Snapshot
from killswitch.model.store import DamagedStateError
from killswitch.pnl_explain.ledger import ahead_of_venue
from killswitch.valuation.ownership import OwnProfit
from killswitch.valuation.position_measures import HOLDINGS, ZERO, base_of
from killswitch.valuation.realised_profits import READ_BACK, fee_of


class AccountGains(Struct, omit_defaults=True):
    """What the fills of one account made, by asset. Times in microseconds of the tick clock.

    `since`: its first snapshot. `until`: up to when its fills are complete, to an hour; None while the venue has not
    stated it. `fills`: the ids of the newest ones, so that each counts once. `unknown`: why no asset's is known.
    """

    since: int
    until: int | None = None
    assets: dict[str, OwnProfit] = {}
    fills: dict[str, int] = {}
    unknown: str | None = None

    @property
    def reason_unknown(self) -> str | None:
        """Why the total is unknown, or None."""
        return self.unknown or next((each.unknown for each in self.assets.values() if each.unknown is not None), None)


NOT_USABLE = Decimal("NaN")
"""What the sum is of positions of which one has no usable number."""

_DECODER = msgjson.Decoder(dict[str, AccountGains])
_ENCODER = msgjson.Encoder(decimal_format="string")


class RealisedGains:
    """The gains of every account; one for a run."""

    def __init__(self) -> None:
        self._accounts: dict[str, AccountGains] = {}
        self._held: dict[str, tuple[Position, ...]] = {}
        """The positions of the last snapshot that has them."""
        self._unreadable: dict[str, str] = {}
        """Account → why its fills are unknown at present."""
        self._is_changed = False

    def observe(self, snapshot: Snapshot, now: int, events: Iterable[Event] = ()) -> None:
        """Count the new fills. `events`: those that are carried out; a reset begins anew what is unknown."""
        for account in snapshot.accounts:
            self._observe(account, now)
        resets = [event.scope or "portfolio" for event in events if event.kind == "reset"]
        for account in snapshot.accounts if resets else ():
            known = self._accounts.get(account.account)
            own = ("portfolio", f"account/{account.account}", f"venue/{account.venue}")
            if known is not None and known.reason_unknown is not None and any(scope in own for scope in resets):
                self._accounts[account.account] = AccountGains(now, known.until, {}, known.fills)
                self._is_changed = True

    def of(self, account: str) -> AccountGains | None:
        """What the account realised; None before it was read. The reason of the present is in `unknown`."""
        found = self._accounts.get(account)
        if found is None:
            return None
        why = found.unknown or self._unreadable.get(account)
        if why is None and found.until is None:
            why = f"the venue of {account} does not state until when its fills are complete"
        return AccountGains(found.since, found.until, found.assets, {}, why)

    # Storing

    def changed(self) -> bytes | None:
        """The gains as JSON; None if they are as at the last call."""
        if not self._is_changed:
            return None
        self._is_changed = False
        return _ENCODER.encode(self._accounts)

    def restore(self, blob: bytes | None) -> None:
        """Restore the gains of an earlier run; DamagedStateError if they are damaged."""
        if not blob:
            return
        try:
            self._accounts = _DECODER.decode(blob)
        except (MsgspecError, ValueError) as error:
            raise DamagedStateError(f"the stored realised P&L cannot be read ({error})") from error

    # One account

    def _observe(self, account: AccountSnapshot, now: int) -> None:
        name = account.account
        if account.quality != "ok" or account.fills is None:
            self._unreadable[name] = f"the fills of {name} are unknown"
            if account.quality != "ok":
                return
        else:
            self._unreadable.pop(name, None)
        found = self._accounts.get(name)
        is_first = found is None
        if found is None:
            found = self._accounts[name] = AccountGains(now)
            self._is_changed = True
        ahead = ahead_of_venue(account, now)
        if account.fills:
            self._count(account, found, ahead, is_first=is_first)
        if account.fills_as_of is not None:
            self._extend(found, to_micros(account.fills_as_of) + ahead, name)
        if account.positions is not None:
            self._held[name] = account.positions

    def _extend(self, found: AccountGains, until: int, name: str) -> None:
        """The fills are complete until then, unless it is too long ago that they were."""
        reached = found.until if found.until is not None else found.since
        if until - reached > READ_BACK and found.unknown is None:
            found.unknown = f"fills of {name} may be missing: they were not read for more than a day"
            self._is_changed = True
        if found.until is None or until - found.until >= HOUR:  # not at every tick: it is stored
            found.until = max(until, reached) if found.until is not None else until
            found.fills = {id_: at for id_, at in found.fills.items() if at >= found.until - HOUR}
            self._is_changed = True

    def _count(self, account: AccountSnapshot, found: AccountGains, ahead: int, *, is_first: bool) -> None:
        """Add the new fills; one that is older than what was complete an hour before was counted."""
        edge = max(found.since, (found.until or 0) - HOUR)
        fresh = []
        for fill in sorted(account.fills or (), key=lambda each: (each.at, each.id)):
            at = to_micros(fill.at) + ahead
            if fill.id in found.fills or (at < edge and not is_first):
                continue
            found.fills[fill.id] = at
            self._is_changed = True
            if not is_first:
                fresh.append(fill)
        if not fresh:
            return
        opens = openings(account, fresh, self._held.get(account.account))
        for fill in fresh:
            asset = base_of(fill.symbol)
            before = found.assets.get(asset, OwnProfit())
            made = _gain(account, fill, opens)
            if isinstance(made, str):
                found.assets[asset] = OwnProfit(before.amount, before.unknown or made)
            else:
                found.assets[asset] = OwnProfit(before.amount + made, before.unknown)


def _gain(account: AccountSnapshot, fill: Fill, opens: frozenset[str]) -> Decimal | str:
    """What the fill made, less its fee; a text is why that is unknown."""
    stated = fill.realized_pnl
    if stated is None and fill.id not in opens:
        return f"the venue does not state what fill {fill.id} of {fill.symbol} made"
    if stated is not None and not sane(stated):
        return f"the realised P&L of fill {fill.id} is not a usable number"
    if not (sane(fill.price) and sane(fill.amount)):
        return f"the price or the amount of fill {fill.id} is not a usable number"
    fee = fee_of(account, fill)
    return fee if isinstance(fee, str) else (stated or ZERO) - fee


def openings(account: AccountSnapshot, fills: Iterable[Fill], before: Iterable[Position] | None) -> frozenset[str]:
    """The ids of the fills that surely reduced no position. `fills` in order; `before`: the positions before them.

    In one-way mode the fills of a symbol must explain how its position changed: a fill that is reported a poll late
    would seem to open what it has closed. Numbers that are not usable explain nothing.
    """
    found, net = set(), dict[str, list[Fill]]()
    for fill in fills:
        if fill.position_side is None:
            net.setdefault(fill.symbol, []).append(fill)
        elif (fill.side == "buy") == (fill.position_side == "long"):
            found.add(fill.id)
    if before is None or account.positions is None or not net:
        return frozenset(found)
    held, now = _net(before), _net(account.positions)
    for symbol, of_symbol in net.items():
        numbers = (held.get(symbol, ZERO), now.get(symbol, ZERO), *(each.amount for each in of_symbol))
        fees = (each.fee for each in of_symbol if each.fee is not None)
        if not all(map(sane, (*numbers, *fees))):
            continue
        size, opens = numbers[0], []
        for fill in of_symbol:
            change = fill.amount if fill.side == "buy" else -fill.amount
            if fill.fee is not None and fill.fee_currency == base_of(symbol) and account.market in HOLDINGS:
                change -= fill.fee
            if size * change >= ZERO:
                opens.append(fill.id)
            size += change
        if size == numbers[1]:
            found.update(opens)
    return frozenset(found)


def _net(positions: Iterable[Position]) -> Mapping[str, Decimal]:
    found: dict[str, Decimal] = {}
    for each in positions:
        signed = each.contracts if sane(each.contracts) else NOT_USABLE
        signed = signed if each.side == "long" else -signed
        found[each.symbol] = found.get(each.symbol, ZERO) + signed
    return found
