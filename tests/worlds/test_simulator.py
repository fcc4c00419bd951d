"""The simulator itself: numbers worked out by hand, so that an error of the simulator does not judge the rule."""

from __future__ import annotations

from decimal import Decimal
from random import Random

import pytest

from killswitch.model.decision import Decision
from killswitch.model.snapshot import Snapshot
from tests.worlds.catalogue import FAMILIES, NAMED
from tests.worlds.judge import Setup, judge, play
from tests.worlds.named import account, read
from tests.worlds.venue_view import Feed, View
from tests.worlds.world import NEVER, Book, World, walk

RNG = Random(0)


def feed(setup: Setup) -> list[Snapshot]:
    return [snapshot for _, snapshot, _ in Feed(setup.world, setup.views, Random(1), restarts=setup.restarts)]


def test_losses_compound_and_flows_do_not_count() -> None:
    """100,000 lose 10%, 45,000 of the 90,000 leave, and the rest loses 10% (4,500): 19%, as a fund would report it."""
    book = account((10.0, 10.0, -0.1), (30.0, 30.0, -0.05), gross=1.0)
    book.world.at(20.0, lambda t: book.flow(t, "withdrawal", -45_000))
    book.world.run([])
    truth = book.truth
    assert truth.fall(15.0) == pytest.approx(0.10)
    assert truth.fall(25.0) == pytest.approx(0.10)
    assert truth.fall(40.0) == pytest.approx(1 - 0.9 * (1 - 4_500 / 45_000))
    assert truth.crossed(0.15) == 30.0
    assert truth.crossed(0.20) is None


def test_a_fill_costs_its_slip_and_its_fee() -> None:
    """1,000 contracts sold 1% below a mark of 100 with a fee of 0.1%: 1,000 and 99 are lost."""
    book = account(gross=1.0)
    book.world.at(10.0, lambda t: book.trade(t, "BTC/USDT:USDT", "sell", 1_000, slip=0.01, fee=0.001))
    book.world.run([])
    assert book.equity(20.0) == pytest.approx(100_000 - 1_000 - 99)
    assert book.truth.fall(20.0) == pytest.approx(0.01099)
    (row,) = book.fills
    assert (row.realized, row.fee, row.visible) == (Decimal(-1_000), Decimal(99), 10.5)


def test_a_flip_realises_the_old_side_and_opens_the_new_one_at_the_fill() -> None:
    """1,000 long from 100, sold 1,500 at 110: 10,000 realised, and 500 short from 110."""
    book = account(gross=1.0)
    book.world.at(10.0, lambda t: book.trade(t, "BTC/USDT:USDT", "sell", 1_500, price=Decimal(110), fee=0.0))
    book.world.run([])
    assert book.wallets["USDT"] == 110_000
    ((key, held),) = book.holdings.items()
    assert (key, held.contracts, held.entry) == (("BTC/USDT:USDT", "short"), 500, 110)


def test_an_inverse_contract_loses_coins_by_its_formula() -> None:
    """600 contracts of 100 USD from 60,000 to 50,000: 60,000 × (1/60,000 − 1/50,000) = −0.2 BTC."""
    world = World(30.0)
    path = walk(RNG, 60_000, 30.0, 0.0, [(10.0, 10.0, -1 / 6)], digits=1)
    world.prices["BTC"] = path
    book = Book(world, "main", {"BTC": 2}, currency="USD")
    book.list("BTC/USD:BTC", path, settle="BTC", size=Decimal(100), inverse=True, step=Decimal(1))
    book.open("BTC/USD:BTC", "long", 60_000)
    world.run([])
    assert book.net("BTC/USD:BTC") == 600
    assert book.picture(20.0).profits["BTC"] == Decimal("-0.2")
    assert book.equity(20.0) == pytest.approx(1.8 * 50_000)


def test_a_transfer_in_transit_is_not_lost() -> None:
    """30,000 leave A and reach B 4 s later: neither fell, and together they never changed."""
    world = World(60.0)
    a, b = account(world=world, name="A"), account(world=world, name="B")
    together = world.together()
    world.at(20.0, lambda t: a.flow(t, "transfer", -30_000, transit=True))
    world.at(24.0, lambda t: b.flow(t, "transfer", 30_000, transit=True))
    world.run([])
    assert (a.truth.worst(60), b.truth.worst(60), together.worst(60)) == (0, 0, 0)


def test_a_split_does_not_change_equity() -> None:
    """Ten times as many contracts at a tenth of the mark."""
    for seed in range(6):
        setup = FAMILIES["split"].world(seed)
        feed(setup)
        assert setup.world.books["main"].truth.worst(200.0) < 0.07


@pytest.mark.parametrize("name", FAMILIES)
def test_the_parts_of_equity_add_up(name: str) -> None:
    """equity = Σ wallet × price + unrealized in every answer that claims it, to a hundred millionth a term."""
    setup = FAMILIES[name].world(0)
    noisy = any((view.noise and not view.noise_in_profit) or view.index_cached for view in setup.views.values())
    for snapshot in feed(setup):
        for each in snapshot.accounts:
            if each.quality != "ok" or each.unrealized is None or noisy:
                continue
            assert each.equity is not None
            assert each.balances is not None
            wallets = [(b.wallet, b.price) for b in each.balances]
            total = sum((w * p for w, p in wallets if w is not None and p is not None), each.unrealized)
            assert abs(each.equity - total) < Decimal("0.0001")


@pytest.mark.parametrize("name", FAMILIES)
def test_the_same_seed_is_the_same_world(name: str) -> None:
    """Snapshot by snapshot."""
    assert feed(FAMILIES[name].world(3)) == feed(FAMILIES[name].world(3))


def test_rows_are_shown_when_they_are_visible_and_once() -> None:
    """A fill row 5 s late, read by the second; a flow row that never comes is never shown."""
    book = account(gross=1.0)
    book.world.at(20.2, lambda t: book.trade(t, "BTC/USDT:USDT", "sell", 100, lag=5.0))
    book.world.at(30.2, lambda t: book.flow(t, "withdrawal", -1_000, lag=NEVER))
    shown = [
        (snapshot.as_of, row)
        for snapshot in feed(read(book))
        for row in (*(snapshot.accounts[0].fills or ()), *(snapshot.accounts[0].flows or ()))
    ]
    ((as_of, row),) = shown
    assert 5.0 <= (as_of - row.at).total_seconds() <= 6.3


def test_the_ledger_claims_to_be_complete_up_to_the_last_read() -> None:
    """Whatever the rows' lag is; a silent ledger's claim grows old."""
    book = account()
    setup = Setup(book.world, {"main": View(poll=10.0, silent_from=50.0)})
    ages = {
        round((snapshot.as_of - (snapshot.accounts[0].fills_as_of or snapshot.as_of)).total_seconds())
        for snapshot in feed(setup)[:50]
    }
    assert max(ages) <= 10
    last = feed(Setup(account().world, {"main": View(poll=10.0, silent_from=50.0)}))[-1]
    assert last.accounts[0].fills_as_of is not None
    assert (last.as_of - last.accounts[0].fills_as_of).total_seconds() > 90


class TestTheJudge:
    """It can return each of its verdicts."""

    def test_a_close_without_a_loss_is_false(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """The decision of a real crash, returned in a world in which only money moved."""
        crash = read(account((40.5, 40.5, -0.3), gross=1.0))
        ((at, decision),) = [each for each in play(crash, 0) if isinstance(each[1], Decision)]

        def played(setup: Setup, *_: object) -> list[tuple[float, Decision]]:
            feed(setup)
            return [(at, decision)]

        monkeypatch.setattr("tests.worlds.judge.play", played)
        verdict = judge(NAMED["30% out, row never"].make(), "x", 0)
        (shot,) = verdict.false
        assert (shot.at, shot.worst) == (at, 0.0)

    def test_an_invisible_loss_is_missed(self) -> None:
        """The venue is polled once, and then never again: the truth falls by 30%."""
        book = account((40.0, 40.0, -0.3), gross=1.0)
        setup = Setup(book.world, {"main": View(equity_cached=1e6, positions_cached=1e6)}, allowed=2.5)
        verdict = judge(setup, "x", 0)
        assert verdict.missed
        assert not verdict.delays

    def test_a_plain_fall_is_detected_in_the_next_tick(self) -> None:
        """30% at 40.5 s: the poll of 41 s shows it."""
        verdict = judge(read(account((40.5, 40.5, -0.3), gross=1.0)), "x", 0)
        (delay,) = verdict.delays
        assert 0.5 <= delay < 1.0
        assert not verdict.bad

    def test_a_loss_detected_after_the_bound_is_late(self) -> None:
        """The same with a bound that no reader with one tick a second can meet."""
        assert judge(read(account((40.5, 40.5, -0.3), gross=1.0), allowed=0.1), "x", 0).late


def test_churn_and_dust_look_the_same() -> None:
    """What the twelfth world shows before any row is the same, whether money was lost or moved."""
    names = ("runaway round trips with flat positions, rows never", "dust withdrawals that look just so")
    lost, moved = (feed(NAMED[name].make()) for name in names)
    until = 100  # the first row of the dust comes at 101 s
    assert lost[:until] == moved[:until]
