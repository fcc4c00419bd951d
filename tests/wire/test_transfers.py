"""Transfers of margin over venues' own payloads, with the real clients: once, whatever the wire does to the request."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from datetime import timedelta
from decimal import Decimal
from itertools import count
from pathlib import Path
from typing import Any

import pytest

from killswitch.accounts.arming import ArmedAccount
from killswitch.model.parsing import UnreadableError
from killswitch.model.venue import (
    AccountSpec,
    FateUnknownError,
    OrderRejectedError,
    SentTransfer,
    Transfers,
    VenueAdapter,
)
from killswitch.runner.assembly import LockPaths, assemble
from killswitch.runner.loop import RunnerPace
from killswitch.runner.performers import CapabilityError
from killswitch.store.sqlite import open_store
from killswitch_ccxt import adapter
from killswitch_ccxt.dialect.transfers import fate_among
from tests.faults.exchange import Exchange, Key, Market
from tests.faults.mishaps import Mishap, Rule, Script
from tests.runner_world import Seen
from tests.unit.runner.test_margin_transfers import topped_up
from tests.virtual_time import VirtualTime
from tests.wire.binance.venue import BinanceWire
from tests.wire.binance.wallets import move
from tests.wire.bybit.venue import BybitWire
from tests.wire.server import KEY, SECRET

D = Decimal
SYMBOL = "BTC/USDT:USDT"
LONG: Key = (SYMBOL, "long")
KEYS = {"key": KEY, "secret": SECRET}
MAIN_UID, OWN_UID = "24600000", "24600001"
PACE = RunnerPace(1.0, 0.5, stop_timeout=0.5)
_NUMBERS = count()
POLICIES = topped_up("5%", "0.04", "3%")
NEEDED = D("333.33333334")
"""50 contracts from 100 with 1,000: at 88 the equity is 400, and 0.5% of 4,400 is 22, which is 3% of 733.33."""


class Owner:
    """A main account with money and a sub-account with a position, each a Bybit on loopback, and runs on both."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.time = VirtualTime()
        self.store = open_store(str(folder / "store.sqlite"))
        self.seen = Seen()
        self.script = Script()
        self.main = BybitWire(self._exchange({LONG: D(50)}), equity=D(1000))
        self.treasury = BybitWire(self._exchange({}), equity=D(5000), mishaps=self.script)
        self.treasury.members = {OWN_UID: self.main}
        self.main.members = {MAIN_UID: self.treasury}
        self.main.key_info |= {"userID": int(OWN_UID), "parentUid": MAIN_UID, "isMaster": False}

    def _exchange(self, held: dict[Key, Decimal]) -> Exchange:
        return Exchange(held, lambda: (self.time.elapsed, self.time.now()), markets=[Market(SYMBOL)])

    def adapter(self, name: str, **more: str) -> VenueAdapter:
        uid, venue = (OWN_UID, self.main) if name == "main" else (MAIN_UID, self.treasury)
        options: dict[str, object] = {
            "clock": self.time, "ccxt": {"numberOfTheTest": next(_NUMBERS)}, "main_uid": MAIN_UID, "uid": uid, **more,
        }  # fmt: skip
        return adapter(AccountSpec(name, "ccxt", "swap", "USDT", venue.address, options, KEYS, "bybit"))

    def run(self, ticks: int, falls_at: int | None = 2, **more: str) -> None:
        """One run of both accounts, in which the price falls to 88 after some ticks."""

        async def play() -> None:
            await self.main.start()
            await self.treasury.start()
            venues = {name: self.adapter(name, **(more if name == "treasury" else {})) for name in ("main", "treasury")}
            accounts = {
                name: ArmedAccount(name, "bybit", "swap", "USDT", venue, armed=True) for name, venue in venues.items()
            }
            try:
                runner = assemble(
                    POLICIES, accounts, self.store, self.time, PACE, live=True, observers=(self.seen,), is_run=True,
                    locks=LockPaths(self.folder / "locks", None),
                )  # fmt: skip
                running = asyncio.ensure_future(runner.run(asyncio.Event(), ticks))
                if falls_at is not None:
                    await asyncio.sleep(falls_at)
                    self.main.exchange.reprice(SYMBOL, D(88))
                await running
            finally:
                for venue in venues.values():
                    await venue.close()
                await self.main.stop()
                await self.treasury.stop()

        self.time.run(play())

    @property
    def requests(self) -> int:
        return self.treasury.calls("transfer")

    @property
    def arrived(self) -> Decimal:
        return self.main.ledger.wallets["USDT"] - 1000

    @property
    def left(self) -> Decimal:
        return 5000 - self.treasury.ledger.wallets["USDT"]

    def statuses(self) -> list[str | None]:
        return [it.data.get("status") for it in self.store.journal() if it.data.get("effect") == "transfer"]

    def texts(self) -> list[str]:
        return [it.text for report in self.seen.reports for it in report.notices if "of margin from" in it.text]


@pytest.fixture
def owner(tmp_path: Path) -> Iterator[Owner]:
    made = Owner(tmp_path)
    yield made
    made.store.close()


def test_margin_moves_from_the_main_account_to_a_sub_account_once_and_ends_the_alarm(owner: Owner) -> None:
    """Within its bound of 400, exactly what reaches the ratio, and both accounts show it as a transfer."""
    owner.run(40)
    assert (owner.requests, owner.arrived, owner.left) == (1, NEEDED, NEEDED)
    assert owner.statuses() == [None, "sent", "moved"]
    assert owner.texts() == []
    assert [each.decision.kind for each in reversed(owner.store.decisions(9))] == [None, "reset"]


@pytest.mark.parametrize(
    ("mishap", "moves", "end", "page"),
    [
        ("done", True, "moved", None),
        ("done_silent", True, "moved", None),
        ("garbled", True, "moved", None),
        ("late", True, "moved", None),
        ("slow", True, "moved", None),
        ("lost", False, "unknown", "it counts as made, and is not repeated"),
        ("silent", False, "unknown", "it counts as made, and is not repeated"),
        ("limited", False, "refused", "the venue refused it, and nothing has moved"),
    ],
)
def test_a_broken_transfer_is_looked_up_and_never_repeated(
    owner: Owner, mishap: Mishap, moves: bool, end: str, page: str | None
) -> None:
    """The time-out after execution is found by its id; what never arrived is counted as made for a day."""
    owner.script.rules.append(Rule("transfer", mishap))
    owner.run(170)
    moved = NEEDED if moves else D(0)
    assert (owner.requests, owner.arrived, owner.left) == (1, moved, moved)
    assert owner.statuses() == [None, "sent", end]
    assert [page in text for text in owner.texts() if page is not None] == ([] if page is None else [True])
    assert page is not None or owner.texts() == []


def test_a_list_that_is_late_is_no_proof_that_nothing_has_moved(owner: Owner) -> None:
    """The answer is lost and the list lacks the transfer: unknown, and not refused."""
    owner.script.rules.append(Rule("transfer", "done"))
    owner.treasury.hidden_transfers = True
    owner.run(170)
    assert (owner.requests, owner.arrived, owner.statuses()[-1]) == (1, NEEDED, "unknown")


def test_a_run_that_is_killed_before_the_answer_leaves_the_look_up_to_the_next(owner: Owner) -> None:
    """The next run asks for the id that the decision gives, finds the transfer, and pages nobody."""
    owner.script.rules.append(Rule("transfer", "done_silent"))
    owner.run(6)
    assert owner.statuses() == [None, "sent"] and owner.arrived == NEEDED
    owner.run(20, None)
    assert (owner.requests, owner.arrived, owner.statuses()) == (1, NEEDED, [None, "sent", "moved"])
    assert owner.texts() == []


def test_a_source_without_the_money_is_refused_by_the_venue_and_paged(owner: Owner) -> None:
    """The money left between the snapshot and the request: the venue's own words reach the operator."""
    withdraw = owner.treasury.ledger.flow

    def empties(route: str, body: Any) -> Any:
        if "wallet-balance" in route and owner.main.exchange.markets[SYMBOL].price == 88 and owner.left < 4000:
            withdraw("withdrawal", D(-4990))
        return body

    owner.treasury.change = empties
    owner.run(12)
    assert (owner.requests, owner.arrived, owner.statuses()[-1]) == (1, 0, "refused")
    (text,) = owner.texts()
    assert "User Insufficient Balance" in text


def test_a_mistyped_user_id_sends_nothing(owner: Owner) -> None:
    """Money for another id would go to another account of the owner; the key of the account tells whose it is."""
    owner.main.key_info["userID"] = 24600002
    owner.run(12)
    assert (owner.requests, owner.arrived, owner.statuses()[-1]) == (0, 0, "unverified")
    (text,) = owner.texts()
    assert "of user 24600002 under the main account 24600000" in text and "correct `uid` and `main_uid`" in text


def test_accounts_of_two_owners_are_refused_at_the_start(owner: Owner) -> None:
    with pytest.raises(CapabilityError, match="its source treasury is at another place of bybit"):
        owner.run(3, None, main_uid="24609999")


@pytest.mark.parametrize("options", [{"uid": "1"}, {"main_uid": "1"}, {"uid": "1", "main_uid": "desk"}])
def test_half_of_the_user_ids_is_an_error_and_none_is_no_transfer(owner: Owner, options: dict[str, object]) -> None:
    spec = AccountSpec("main", "ccxt", "swap", "USDT", None, {}, KEYS, "bybit")
    assert adapter(spec).transfers is None
    with pytest.raises(ValueError, match="write both"):
        adapter(AccountSpec("main", "ccxt", "swap", "USDT", None, options, KEYS, "bybit"))


# Binance, whose requests take no id of ours


def binance(market: str = "swap", exchange: str = "binanceusdm", **more: Any) -> Transfers | None:
    spec = AccountSpec("main", "ccxt", market, "USDT", None, {}, KEYS, exchange)
    return adapter(AccountSpec(**{each: getattr(spec, each) for each in spec.__struct_fields__} | more)).transfers


def test_the_wallets_of_one_key_reach_each_other_at_binance() -> None:
    """Spot, margin, USD-M and COIN-M of one key; another key may be of another owner, and test systems have none."""
    found = [
        binance(), binance("spot", "binance"), binance("margin", "binance"),
        binance(exchange="binancecoinm", currency="BTC"),
    ]  # fmt: skip
    assert all(each is not None for each in found)
    assert [each.name for each in found if each] == ["UMFUTURE", "MAIN", "MARGIN", "CMFUTURE"]
    places = {each.place for each in found if each}
    assert len(places) == 1 and KEY not in places.pop()
    other = binance(credentials={"key": "another", "secret": SECRET})
    assert other is not None and found[0] is not None and other.place != found[0].place
    assert binance(environment="demo") is None
    assert binance(credentials={}) is None


def at_binance(play: Callable[[BinanceWire, Transfers, VirtualTime], Any]) -> None:
    """Run a play with the futures account at a Binance on loopback."""
    time = VirtualTime()
    wire = BinanceWire(Exchange({}, lambda: (time.elapsed, time.now()), markets=[Market(SYMBOL)]), equity=D(1000))

    async def run() -> None:
        await wire.start()
        options: dict[str, object] = {"clock": time, "timeout": 5, "ccxt": {"numberOfTheTest": next(_NUMBERS)}}
        venue = adapter(AccountSpec("main", "ccxt", "swap", "USDT", wire.address, options, KEYS, "binanceusdm"))
        try:
            assert venue.transfers is not None and venue.transfers.find is not None
            await play(wire, venue.transfers, time)
        finally:
            await venue.close()
            await wire.stop()

    time.run(run())


def test_a_lost_answer_is_found_by_amount_and_time_among_what_had_no_answer() -> None:
    """A transfer of the same amount that was answered, or that was made before, is another one."""

    async def play(wire: BinanceWire, ways: Transfers, time: VirtualTime) -> None:
        assert ways.find is not None
        await ways.send("MAIN", D(7), "kstr1")
        sent = SentTransfer("MAIN", D(7), "kstr2", time.now())
        await time.sleep(1)
        assert await ways.find(sent) == "open"
        wire.mishaps = Script(Rule("transfer", "done"))
        with pytest.raises(FateUnknownError):
            await ways.send("MAIN", D(7), "kstr2")
        assert await ways.find(sent) == "moved"
        later = SentTransfer("MAIN", D(7), "kstr3", time.now() + timedelta(seconds=1))
        assert await ways.find(later) == "open"
        assert wire.ledger.wallets["USDT"] == 1000 - 14 and wire.wallets["MAIN"] == 5014

    at_binance(play)


@pytest.mark.parametrize("mishap", ["lost", "silent", "done"])
def test_an_equal_transfer_of_somebody_else_in_the_same_second_is_not_taken_for_ours(mishap: Mishap) -> None:
    """It is in the list before the request: what never arrived stays unknown, and what did is found all the same."""

    async def play(wire: BinanceWire, ways: Transfers, time: VirtualTime) -> None:
        assert ways.find is not None
        sent = SentTransfer("MAIN", D(7), "kstr1", time.now())
        params = {"type": "UMFUTURE_MAIN", "asset": "USDT", "amount": "7"}
        move(wire, params)
        wire.mishaps = Script(Rule("transfer", mishap))
        with pytest.raises((FateUnknownError, TimeoutError)):
            async with asyncio.timeout(8):
                await ways.send("MAIN", D(7), "kstr1")
        assert await ways.find(sent) == ("moved" if mishap == "done" else "open")

    at_binance(play)


def test_a_list_that_cannot_be_read_before_a_transfer_does_not_stop_it() -> None:
    """The margin moves; only a lookup would be less exact."""

    async def play(wire: BinanceWire, ways: Transfers, time: VirtualTime) -> None:
        wire.hidden_transfers = True
        await ways.send("MAIN", D(7), "kstr1")
        assert wire.wallets["MAIN"] == 5007

    at_binance(play)


def test_a_refusal_moves_nothing_and_has_its_reason() -> None:
    async def play(wire: BinanceWire, ways: Transfers, time: VirtualTime) -> None:
        with pytest.raises(OrderRejectedError) as refused:
            await ways.send("MAIN", D(1001), "kstr1")
        assert refused.value.reason == "insufficient_margin" and wire.wallets["MAIN"] == 5000

    at_binance(play)


@pytest.mark.parametrize(
    ("state", "fate"), [("CONFIRMED", "moved"), ("PENDING", "open"), ("FAILED", "failed"), ("SUCCESS", "moved")]
)
def test_the_state_of_a_row_is_its_fate(state: str, fate: str) -> None:
    """Rows of other amounts are other transfers; a state that nobody documents is never a failure."""
    names = ("amount", "status", "tranId")
    rows = [{"amount": "7", "status": state, "tranId": 1}, {"amount": "8", "status": "FAILED", "tranId": 2}]
    assert fate_among(rows, D(7), names) == fate
    assert fate_among(rows[1:], D(7), names) == "open"
    with pytest.raises(UnreadableError, match="unknown state 'REVERSED'"):
        fate_among([{"amount": "7.00", "status": "REVERSED", "tranId": 1}], D(7), names)
