"""C14–C16: venues that are slow, busy, failing or back again, and adapters with defects."""

from __future__ import annotations

import asyncio
from decimal import Decimal

import pytest

from killswitch.model.venue import Cost, RateLimit, VenueDescription
from killswitch.ratelimit.breaker import Breaker
from killswitch.ratelimit.budget import RequestBudgets
from killswitch.runner.closing_workers import ClosingWorker, ClosingWorkers
from tests.faults.exchange import Key
from tests.faults.mishaps import Mishap, Rule
from tests.faults.scene import Scene, long
from tests.faults.wire import BookClosingWire

BTC, ETH = long("BTC", "ETH")
MANY: dict[Key, str | int] = {(f"S{number}", "long"): 1 for number in range(60)}
LIMITED = VenueDescription(
    limits=(RateLimit("orders", 10, 1.0), RateLimit("weight", 60, 10.0, by="address")),
    costs=(Cost("submit", "orders", each=1), Cost("submit", "weight", each=1), Cost("snapshot", "weight", units=5)),
)


def test_c14_a_close_within_the_venues_limits_is_never_refused_and_never_banned() -> None:
    """60 orders where 10 a second and 60 in ten seconds are let in: all are sent in their time, none is refused."""
    budget = RequestBudgets().of("main", "venue", LIMITED, Decimal("0.5"))
    scene = Scene(MANY, traits=LIMITED, closing={"budget": budget})
    scene.decide(dict.fromkeys(MANY, 0))
    assert scene.play() == {"d1": "flat"}
    assert sum(scene.exchange.held.values()) == 0
    assert (scene.wire.meter.refusals, scene.wire.meter.bans) == (0, 0)
    # 55 in the first ten seconds with one poll of 5; the rest when those have left the window.
    assert scene.ended_at is not None
    assert scene.ended_at < 25.0


def test_c14_a_close_without_known_limits_is_refused_and_ends_all_the_same() -> None:
    """The venue answers 429 with a time: nothing is lost, nothing is sent twice, and there is no ban."""
    scene = Scene(MANY, traits=VenueDescription())
    scene.wire.meter = type(scene.wire.meter)(LIMITED)
    scene.decide(dict.fromkeys(MANY, 0))
    assert scene.play() == {"d1": "flat"}
    assert sum(scene.exchange.held.values()) == 0
    assert len(scene.orders()) == 60


def test_c14_a_ban_is_waited_out_and_other_venues_continue() -> None:
    """Everything of one venue is refused for a minute; the other account is flat within a second."""
    banned = Scene({BTC: 10}, account="banned")
    free = Scene({ETH: 10}, account="free", time=banned.time)
    banned.wire.meter.banned_until = 60.0
    flat_at: list[float] = []

    async def story() -> None:
        closings = closings_of(banned, free)
        await closings.recover(1.0)
        closings.adopt([scene.decide({key: 0}) for scene, key in ((banned, BTC), (free, ETH))])
        while closings.is_working and banned.time.elapsed < 200.0:
            await closings.run_until(asyncio.ensure_future(asyncio.sleep(1.0)))
            if not flat_at and free.held(ETH) == [0]:
                flat_at.append(banned.time.elapsed)

    banned.time.run(story())
    assert (banned.held(BTC), free.held(ETH)) == ([0], [0])
    assert flat_at[0] <= 1.0
    assert 60.0 <= banned.time.elapsed <= 100.0


def test_c14_one_silent_venue_delays_no_other() -> None:
    """It answers nothing for a minute; the other account is flat within a second, and its own account in the end."""
    silent = Scene({BTC: 10}, *silence(), account="silent")
    quick = Scene({ETH: 10}, account="quick", time=silent.time)
    ended: list[float] = []

    async def story() -> None:
        closings = closings_of(silent, quick)
        closings.adopt([scene.decide({key: 0}) for scene, key in ((silent, BTC), (quick, ETH))])
        while closings.is_working and silent.time.elapsed < 300.0:
            await closings.run_until(asyncio.ensure_future(asyncio.sleep(0.5)))
            if not ended and quick.statuses:
                ended.append(silent.time.elapsed)

    silent.time.run(asyncio.wait_for(story(), 400.0))
    assert (silent.held(BTC), quick.held(ETH)) == ([0], [0])
    assert ended[0] <= 1.0


def closings_of(*scenes: Scene) -> ClosingWorkers:
    """The accounts of several scenes in one runner; the scenes share their time."""
    return ClosingWorkers(
        {it.exchange.account: ClosingWorker(it.exchange.account, it.closer, (), it.time.monotonic) for it in scenes}
    )


def silence() -> list[Rule]:
    return [Rule(call, "silent", times=4) for call in ("snapshot", "submit", "find_order")]


SLOW = VenueDescription((RateLimit("orders", 3, 10.0),), (Cost("submit", "orders", each=1),), whole_book=True)


@pytest.mark.parametrize(
    "mishap", ["none", "done", "done_silent", "lost", "silent", "late", "twice", "garbled", "down"]
)
def test_c14_a_whole_book_close_is_requested_once_and_its_residual_is_closed_one_by_one(mishap: Mishap) -> None:
    """Twelve positions where three orders in ten seconds are let in: all flat in the end, whatever was answered."""
    book: dict[Key, str | int] = {(f"S{number}", "long"): 5 for number in range(12)}
    budget = RequestBudgets().of("main", "venue", SLOW, Decimal("0.5"))
    scene = Scene(book, Rule("close_book", mishap), wire=BookClosingWire, traits=SLOW, closing={"budget": budget})
    scene.decide(dict.fromkeys(book, 0))
    assert scene.play() == {"d1": "flat"}
    assert sum(scene.exchange.held.values()) == 0
    assert scene.calls("close_book") == 1
    if mishap in ("lost", "silent", "down"):
        assert scene.calls("submit") == 12
    assert (scene.wire.meter.refusals, scene.wire.meter.bans) == (0, 0)


@pytest.mark.parametrize("outage", [5.0, 60.0, 300.0])
@pytest.mark.parametrize("kind", ["down", "garbled", "lost", "defect"])
def test_c15_a_breaker_that_has_opened_closes_when_the_venue_is_back(kind: Mishap, outage: float) -> None:
    """Every call fails for as long as the outage lasts; soon after it the position is closed, without a restart."""
    scene = Scene({BTC: 10}, mishaps=Outage(kind, outage), closing={"breaker": Breaker()})
    scene.decide({BTC: 0})
    assert scene.play() == {"d1": "flat"}
    assert scene.held(BTC) == [0]
    assert scene.ended_at is not None
    assert scene.ended_at <= outage + 45.0, "later than the longest wait between two probes and between two orders"
    assert scene.notices


class Outage:
    """Every call fails in one way until then."""

    def __init__(self, kind: Mishap, until: float) -> None:
        self._kind: Mishap = kind
        self._until = until

    def at(self, occasion: object, now: float) -> Mishap:
        return self._kind if now < self._until else "none"


@pytest.mark.parametrize("defect", ["defect", "garbled", "called_off", "nonsense"])
def test_c16_a_position_whose_orders_make_the_adapter_fail_aborts_nothing(defect: Mishap) -> None:
    """Whatever the adapter does with BTC: ETH is flat within a second, and BTC is not reported as what it is not."""
    scene = Scene({BTC: 10, ETH: 4}, Rule("submit", defect, "BTC", times=1000), Rule("find_order", defect, times=6))
    flat: list[bool] = []
    scene.at(1.5, lambda: flat.append(scene.held(ETH) == [0]))
    scene.decide({BTC: 0, ETH: 0})
    assert scene.play() == {"d1": "flat"}
    assert flat == [True]


@pytest.mark.parametrize("odd", ["NaN", "Infinity", "0"])
def test_c16_a_missing_price_aborts_nothing(odd: str) -> None:
    """The mark of one position is no number, or nothing: both are closed."""
    scene = Scene({BTC: 10, ETH: 4})
    scene.exchange.markets["BTC"].price = Decimal(odd)
    scene.decide({BTC: 0, ETH: 0})
    assert scene.play() == {"d1": "flat"}
    assert scene.held(BTC, ETH) == [0, 0]
