"""The scenarios whose stores are recorded: positions, faults, and the length of the run.

Each function prepares a site and plays its first run to the end. A later run continues some of them on the store that
an earlier version wrote: `CONTINUED` defines from when.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from decimal import Decimal
from pathlib import Path

from killswitch.market.rules import MarketRules
from killswitch.market.terms import VenueTerms
from killswitch.model.snapshot import OrderSide
from killswitch.model.venue import Cost, OrderRequest, RateLimit, VenueDescription
from killswitch.planning.operator.plan_file import decode_plan, encode_plan
from tests.baselines.site import Site, linear

PLAN = Path(__file__).parent / "recorded" / "plan.json"

SWAPS = {"BTC_USDT": "60000", "ETH_USDT": "3000", "SOL_USDT": "100"}
THIN = MarketRules(participation=Decimal("0.01"))
"""A hundredth of a bar's volume is available, so that a close takes several bars."""


def closed(folder: Path) -> Site:
    """A stage trims, the next closes everything, both to the end; two operator resets end the incident.

    Reports and runbooks are rendered during the run, and every snapshot is recorded.
    """
    site = _desk(folder, "staged")
    site.reports, site.recording = True, folder / "recording.jsonl"
    site.account("watched", "20000")
    site.hold("watched", "SOL_USDT", "long", "15000")
    site.set_prices(15, BTC_USDT="59600", ETH_USDT="2980")
    site.set_prices(55, BTC_USDT="57000", ETH_USDT="2900", SOL_USDT="97")
    site.command(75, "reset", "account/main", "the book is flat and looked through")
    site.run(90)
    return site


def half_closed(folder: Path) -> Site:
    """Killed in mid-close in a thin market: orders rest, position targets are open, and the lease is still held."""
    site = _desk(folder, "stop", rules=THIN, volume="250", interval=5.0)
    site.set_prices(15, BTC_USDT="55000", ETH_USDT="2700")
    site.run(27, killed=True)
    return site


def set_aside(folder: Path) -> Site:
    """Answers about one account's orders are lost: an order of unknown status is detached, and stays so."""
    site = _desk(folder, "stop")
    _lose_answers(site, 15, 95)
    site.set_prices(15, BTC_USDT="55000", ETH_USDT="2700")
    site.run(70)
    return site


def asked_no_more(folder: Path) -> Site:
    """No answer arrives in ten minutes: the order is no longer queried, and the close ends in that state."""
    site = _desk(folder, "half", interval=10.0)
    _lose_answers(site, 15, 5000)
    site.set_prices(15, BTC_USDT="55000", ETH_USDT="2700")
    site.run(660)
    return site


def given_up(folder: Path) -> Site:
    """A market is halted in mid-close: an operator gives the close up, and the remaining position stays open."""
    site = _desk(folder, "stop")
    site.at(16, lambda: site.market.set_state("ETH_USDT", "halted"))
    site.set_prices(15, BTC_USDT="55000", ETH_USDT="2700")
    site.command(60.5, "give_up", None, "the venue opens tomorrow")
    site.run(75)
    return site


def whole_book(folder: Path) -> Site:
    """The venue accepts two orders a minute, which a first stage has used up: a whole-book close follows."""
    traits = VenueDescription(
        limits=(RateLimit("orders", 2, 60.0),),
        costs=(Cost("submit", "orders", each=1),),
        whole_book=True,
        enforces_reduce_only=True,
    )
    site = _desk(folder, "staged", terms=VenueTerms(traits=traits))
    site.set_prices(15, BTC_USDT="59600", ETH_USDT="2980")
    site.set_prices(45, BTC_USDT="57000", ETH_USDT="2900", SOL_USDT="97")
    site.run(70)
    return site


def hops(folder: Path) -> Site:
    """A spot book is sold: one holding has no open market against the currency, and is sold through BTC."""
    symbols = {"X/BTC": "0.01", "BTC/USDT": "50000", "ADA/USDT": "0.5", "BNB/USDT": "400"}
    rules = (linear("X/BTC", price_step="0.00000001"), linear("BTC/USDT", amount_step="0.00001", min_amount="0.00001"))
    site = Site(folder, "spot", symbols, instruments=rules, volume="1000000")
    site.recording = folder / "recording.jsonl"
    site.account("main", "100000")
    for symbol, value in (("X/BTC", "20000"), ("BTC/USDT", "10000"), ("ADA/USDT", "30000"), ("BNB/USDT", "5000")):
        site.hold("main", symbol, "long", value)
    site.set_prices(15, **{"BTC/USDT": "43000", "ADA/USDT": "0.35"})
    site.run(60)
    return site


def hedged(folder: Path) -> Site:
    """The venue goes down at the first order: after a minute BTC on the other account is the proxy hedge."""
    site = Site(folder, "hedge", {"BTC_USDT": "60000"})
    site.account("main", "10000")
    trouble = site.troubles["main"]
    site.account("other", "50000")
    site.hold("main", "BTC_USDT", "long", "20000")
    site.set_prices(15, BTC_USDT="55000")
    site.at(15, lambda: trouble.update({"submit": "goes down"}))
    site.at(100, trouble.clear)
    site.run(120)
    return site


def protected(folder: Path) -> Site:
    """Half of a book is closed at a venue where its stop orders block that: they are cancelled and restored."""
    site = _desk(folder, "half", terms=VenueTerms(resting_exits_block=True))
    site.at(2, lambda: _stop(site, "BTC_USDT", "sell", "0.5", falls_to="50000"))
    site.at(2, lambda: _stop(site, "ETH_USDT", "sell", "10", falls_to="2000"))
    site.set_prices(15, BTC_USDT="55000", ETH_USDT="2700")
    site.run(60)
    return site


def by_hand(folder: Path) -> Site:
    """An operator's drill, executed by an unwinding with a ladder; then a forced close at a venue that is down."""
    site = _desk(folder, "careful")
    trouble = site.troubles["main"]
    site.command(10, "close", "account/main", "drill: the monthly one", cause="drill")
    site.at(40, lambda: site.market.open_position("main", "BTC_USDT", "short", Decimal(12000)))
    site.at(50, lambda: trouble.update({"snapshot": "down"}))
    site.command(55, "close", None, "exchange-breach: keys are out", cause="exchange-breach", force=True)
    site.at(70, trouble.clear)
    site.run(100)
    return site


def waiting(folder: Path) -> Site:
    """One account is latched and locked for ever, one confirms its fall, one is down with a pending operator close."""
    site = Site(folder, "waiting", SWAPS, interval=5.0)
    site.recording = folder / "recording.jsonl"
    for name, symbol in (("latched", "BTC_USDT"), ("confirming", "ETH_USDT"), ("dark", "SOL_USDT")):
        site.account(name, "10000")
        site.hold(name, symbol, "long", "20000")
    site.at(50, lambda: site.troubles["dark"].update({"snapshot": "down"}))
    site.set_prices(15, BTC_USDT="55000")
    site.set_prices(65, ETH_USDT="2900")
    site.at(180, site.troubles["dark"].clear)
    site.command(130, "close", "account/dark", "operator: nobody sees it", cause="operator")
    site.run(140)
    return site


def planned(folder: Path) -> Site:
    """A plan that an earlier version saved is applied to the book for which it was made, and executed."""
    site = _planning(folder)
    saved = PLAN if PLAN.exists() else site.folder / PLAN.name
    site.at(20, lambda: site.apply(decode_plan(saved.read_bytes())))
    site.run(60)
    return site


def _planning(folder: Path) -> Site:
    """Save the plan of an operator close at the tenth second, as `ksctl close --dry-run --out` does."""
    site = _desk(folder, "stop")
    site.run(10)
    (site.folder / PLAN.name).write_bytes(encode_plan(site.plan_of_closing("account/main")))
    return site


SCENARIOS: Mapping[str, Callable[[Path], Site]] = {
    "closed": closed,
    "half-closed": half_closed,
    "set-aside": set_aside,
    "asked-no-more": asked_no_more,
    "given-up": given_up,
    "whole-book": whole_book,
    "hops": hops,
    "hedged": hedged,
    "protected": protected,
    "by-hand": by_hand,
    "waiting": waiting,
    "planned": planned,
}
CONTINUED: Mapping[str, tuple[float, float]] = {"half-closed": (70, 260), "set-aside": (80, 160), "waiting": (150, 220)}
"""Scenarios that a later run continues: from which second, and to which. A killed runner still holds the lease."""


def _desk(folder: Path, policies: str, **more: object) -> Site:
    """An account of 10,000 that is long BTC and ETH and short SOL, 45,000 in all."""
    site = Site(folder, policies, SWAPS, **more)  # type: ignore[arg-type] # by the scenarios above
    site.account("main", "10000")
    for symbol, side, value in (
        ("BTC_USDT", "long", "30000"), ("ETH_USDT", "long", "9000"), ("SOL_USDT", "short", "6000"),
    ):  # fmt: skip
        site.hold("main", symbol, side, value)  # type: ignore[arg-type] # one of the two
    return site


def _lose_answers(site: Site, start: float, end: float) -> None:
    """Between these seconds requests on the account's orders are executed without an answer; snapshots are answered."""
    trouble = site.troubles["main"]
    calls = ("submit", "find_order", "open_orders", "fills")
    site.at(start, lambda: trouble.update(dict.fromkeys(calls, "lost")))
    site.at(end, trouble.clear)


def _stop(site: Site, symbol: str, side: OrderSide, amount: str, *, falls_to: str) -> None:
    """Place a protective order of the account itself."""
    site.market.submit(
        "main",
        OrderRequest(
            client_order_id=f"stop-{symbol.lower()[:3]}", symbol=symbol, side=side, position_side="long",
            amount=Decimal(amount), reduce_only=True, type="market", trigger_price=Decimal(falls_to),
            trigger_when="falls",
        ),
    )  # fmt: skip
