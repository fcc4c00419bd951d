"""What a venue books, and what the judge makes of it: numbers worked out by hand."""

from __future__ import annotations

from collections.abc import Iterator
from decimal import Decimal
from fractions import Fraction

import pytest
from msgspec.structs import replace

from killswitch.model.decision import Decision
from killswitch.model.snapshot import Snapshot
from tests.worlds.bookings import (
    carry,
    close_all,
    deposit_all,
    seize,
    settle_profits,
    split_contracts,
    split_holding,
    withdraw_all,
)
from tests.worlds.judge import Setup, judge, play
from tests.worlds.named import CALM, account, read
from tests.worlds.named_bookings import BTC, holding
from tests.worlds.test_simulator import feed
from tests.worlds.truth import Truth
from tests.worlds.venue_view import View
from tests.worlds.world import NEVER, Book, Print, World, walk


def test_a_carried_profit_is_in_the_entry_price_and_not_in_the_wallet() -> None:
    """1,000 long at 100 that have gained 12,000 were entered at 88; the wallet is 88,000, the equity 100,000."""
    book = account()
    carry(book, 0.12)
    assert (book.holdings[BTC, "long"].entry, book.wallets["USDT"], book.equity(0.0)) == (88, 88_000, 100_000)


def test_a_settlement_moves_profit_to_the_wallet_and_the_entry_price_to_the_mark() -> None:
    """Entered at 100, settled at 110: 10,000 become wallet, and a row shows them 15 s later; nothing was earned."""
    book = account((10.0, 10.0, 0.1))
    book.world.at(20.0, lambda t: settle_profits(book, t, lag=15.0))
    book.world.run([])
    assert (book.holdings[BTC, "long"].entry, book.wallets["USDT"]) == (110, 110_000)
    assert book.equity(15.0) == book.equity(25.0) == 110_000
    (row,) = book.flows
    assert (row.kind, row.amount, row.asset, row.at, row.visible) == ("funding", 10_000, "USDT", 20.0, 35.0)


def test_an_inverse_contract_settles_in_coins() -> None:
    """600 contracts of 100 USD from 60,000 to 50,000 pay 0.2 BTC, without a row."""
    world = World(30.0)
    path = walk(CALM, 60_000, 30.0, 0.0, [(10.0, 10.0, -1 / 6)], digits=1)
    world.prices["BTC"] = path
    book = Book(world, "main", {"BTC": 2}, currency="USD")
    book.list("BTC/USD:BTC", path, settle="BTC", size=Decimal(100), inverse=True, step=Decimal(1))
    book.open("BTC/USD:BTC", "long", 60_000)
    world.at(20.0, lambda t: settle_profits(book, t))
    world.run([])
    assert (book.wallets["BTC"], book.holdings["BTC/USD:BTC", "long"].entry) == (Decimal("1.8"), 50_000)
    assert book.flows == []


def test_a_part_of_the_positions_may_be_settled() -> None:
    """The other one keeps its entry price."""
    book = account((10.0, 10.0, 0.1))
    book.list("ETH/USDT:USDT", book.contracts[BTC].path)
    book.open("ETH/USDT:USDT", "short", 50_000)
    book.world.at(20.0, lambda t: settle_profits(book, t, only=[("ETH/USDT:USDT", "short")]))
    book.world.run([])
    assert (book.holdings[BTC, "long"].entry, book.holdings["ETH/USDT:USDT", "short"].entry) == (100, 110)
    assert book.wallets["USDT"] == 95_000


def test_a_broken_share_is_paid_in_cash() -> None:
    """3:2 of 701 shares of 100 are 1,051.5: 1,051 of 66.6667, and 33.33 in cash; nothing is lost."""
    book = holding("TSLA", [(40.75, 40.75, -1 / 3)], held=70_100, market="equity")
    book.world.at(40.75, lambda t: split_holding(book, t, "TSLA", Fraction(3, 2), whole=True))
    book.world.run([])
    assert (book.wallets["TSLA"], book.wallets["USD"]) == (1_051, Decimal("29_933.33"))
    assert book.equity(50.0) == pytest.approx(100_000, abs=0.05)


def test_a_thousand_contracts_become_one() -> None:
    """1,000 contracts entered at 100 become one entered at 100,000."""
    book = account()
    split_contracts(book, 0.0, BTC, Fraction(1, 1000))
    assert (book.holdings[BTC, "long"].contracts, book.holdings[BTC, "long"].entry) == (1, 100_000)


class TestTheTruthOfAnEmptyAccount:
    """Its unit value stands still."""

    def test_what_was_lost_before_counts_after_the_return(self) -> None:
        """5% of 100,000 is lost, all leaves, 50,000 come, and 5,000 of them are lost: 1 − 0.95 × 0.9."""
        truth = Truth("main")
        for t, equity in ((0.0, 100_000.0), (1.0, 95_000.0)):
            truth.earn(t, equity)
        truth.issue(2.0, 0.0)
        truth.earn(3.0, 0.0)
        assert truth.fall(3.0) == pytest.approx(0.05)
        truth.issue(4.0, 50_000.0)
        truth.earn(5.0, 45_000.0)
        assert truth.fall(5.0) == pytest.approx(1 - 0.95 * 0.9)

    def test_dust_gains_and_loses_nothing(self) -> None:
        """10 of 100,000 are left, and half of that is lost."""
        truth = Truth("main")
        truth.earn(0.0, 100_000.0)
        truth.issue(1.0, 10.0)
        truth.earn(2.0, 5.0)
        truth.issue(3.0, 100_005.0)
        truth.earn(4.0, 98_004.9)
        assert truth.fall(4.0) == pytest.approx(0.02)

    def test_an_account_below_zero_is_not_empty(self) -> None:
        """What is lost stays lost, whatever comes."""
        truth = Truth("main")
        truth.earn(0.0, 100_000.0)
        truth.earn(1.0, -1.0)
        truth.issue(2.0, 100_000.0)
        assert truth.fall(2.0) == 1.0

    def test_a_reset_accepts_what_is_lost(self) -> None:
        """After 20% it begins again: 10% of 80,000."""
        truth = Truth("main", "start")
        truth.earn(0.0, 100_000.0)
        truth.earn(1.0, 80_000.0)
        assert truth.fall(1.0) == pytest.approx(0.2)
        truth.reset(2.0)
        truth.earn(3.0, 72_000.0)
        assert (truth.fall(2.0), truth.fall(3.0)) == (0.0, pytest.approx(0.1))
        assert (truth.worst(3.0), truth.worst(3.0, since=1.5)) == (pytest.approx(0.2), pytest.approx(0.1))
        assert truth.crossed(0.09, since=2.0) == 3.0
        assert truth.crossed(0.09, before=2.0) == 1.0

    def test_an_account_is_emptied_and_refilled(self) -> None:
        """100,000 long at 100 are closed for a fee of 50, leave, and come back: 0.05% is lost."""
        book = account()
        left: dict[str, Decimal] = {}
        book.world.at(10.0, lambda t: close_all(book, t, lag=0.5))
        book.world.at(11.0, lambda t: left.update(withdraw_all(book, t, lag=0.5)))
        book.world.at(30.0, lambda t: deposit_all(book, t, left, lag=0.5))
        book.world.run([])
        assert (left, book.equity(20.0)) == ({"USDT": Decimal(99_950)}, 99_950)  # the book as it is at the end
        assert book.truth.worst(100.0) == pytest.approx(0.0005)

    def test_what_a_venue_seizes_is_lost(self) -> None:
        """Contracts and money vanish: 100%."""
        book = account()
        book.world.at(10.0, lambda t: seize(book, t))
        book.world.run([])
        assert (book.truth.fall(9.0), book.truth.fall(11.0)) == (0.0, 1.0)


def test_a_print_is_shown_and_is_not_true() -> None:
    """One snapshot of a mark of 70 instead of 100, 30,000 less, and an index of 100; the truth does not change."""
    book = account()
    book.prints.append(Print(39.95, 40.75, BTC, Decimal("0.7")))
    shown: list[Snapshot] = feed(read(book, index=True))
    wrong = [each.accounts[0] for each in shown if each.accounts[0].equity != 100_000]
    (seen,) = wrong
    assert seen.positions is not None
    assert seen.marks is not None
    assert (seen.equity, seen.unrealized) == (70_000, -30_000)
    assert (seen.positions[0].mark_price, seen.positions[0].index_price) == (70, 100)
    assert seen.marks[0].mark_price == 70
    assert book.truth.worst(100.0) == 0.0


class TestTheJudge:
    """It can return each of its verdicts."""

    def test_a_known_value_of_an_account_in_debt_is_wrong_below_all(self) -> None:
        """A calm account, of which the world claims that it owes money."""
        setup = read(account())
        setup.policy, setup.owes = "minute", [(100.0, 140.0)]
        assert judge(setup, "x", 0).misread

    def test_a_value_far_from_the_truth_at_the_end_is_wrong(self) -> None:
        """30% is lost, and the venue shows an old answer for ever."""
        book = account((40.0, 40.0, -0.3))
        setup = Setup(book.world, {"main": View(equity_cached=1e6, positions_cached=1e6)}, allowed=NEVER)
        setup.policy, setup.ends_within = "peak", 0.01
        verdict = judge(setup, "x", 0)
        assert verdict.misread
        assert not verdict.missed

    @pytest.mark.parametrize(("counts", "false"), [(True, 1), (False, 0)])
    def test_a_close_without_orders_is_false_where_it_counts(
        self, monkeypatch: pytest.MonkeyPatch, *, counts: bool, false: int
    ) -> None:
        """The decision of a real crash without its orders, in a world in which nothing was lost."""
        crash = read(account((40.5, 40.5, -0.3)))
        ((at, decision),) = [each for each in play(crash, 0) if isinstance(each[1], Decision)]

        def played(setup: Setup, *_: object) -> Iterator[tuple[float, Decision]]:
            feed(setup)
            yield at, replace(decision, intents=())

        monkeypatch.setattr("tests.worlds.judge.play", played)
        setup = replace(read(account()), flat_counts=counts)
        assert len(judge(setup, "x", 0).false) == false

    def test_each_reset_begins_an_episode(self) -> None:
        """12% is lost and fires, a reset accepts it, and 12% more fires again; both are right."""
        book = account((20.0, 22.0, -0.12), (60.0, 62.0, -0.12))
        book.world.at(40.0, book.truth.reset)
        setup = read(book)
        setup.resets = [40.0]
        verdict = judge(setup, "x", 0)
        assert (len(verdict.fired), len(verdict.delays), verdict.bad) == (2, 2, False)
