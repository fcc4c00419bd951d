"""Fee queries: orders whose fees only their fills carry are queried after closing, delay nothing, and are not guessed.

The exchange of these tests takes 0.05% of what is traded, in USDT, and its price is 100: 10 contracts cost 0.5.
"""

from __future__ import annotations

from collections.abc import Callable
from decimal import Decimal
from typing import Any

import pytest
from msgspec.structs import replace

from killswitch.execution.query.fee_queries import TRIES, total_fee
from killswitch.model.decision import Decision
from killswitch.model.snapshot import Fill
from killswitch.model.store import JournalEntry
from killswitch.model.venue import Cost, OrderReport, OrderRequest, RateLimit, RateLimitedError, VenueTraits
from killswitch.ratelimit.breaker import Breaker
from killswitch.ratelimit.budget import RequestBudgets
from tests.faults.exchange import Key
from tests.faults.mishaps import Mishap, Rule
from tests.faults.scene import Scene, long
from tests.faults.statement import statement
from tests.faults.wire import Wire
from tests.honest_venue import NOW
from tests.virtual_time import VirtualTime

D = Decimal
BTC, ETH = long("BTC", "ETH")
BY_FILLS = VenueTraits(fees_by_fills=True)


class FeesByFills(Wire):
    """No answer about an order carries its fee; `fills` does, in `asset`, once there were `late` queries."""

    asset = "USDT"
    late = 0

    async def submit(self, request: OrderRequest) -> OrderReport:
        return replace(await super().submit(request), fee=None)

    async def find_order(self, symbol: str, client_order_id: str) -> OrderReport | None:
        found = await super().find_order(symbol, client_order_id)
        return None if found is None else replace(found, fee=None)

    async def fills(self, symbol: str, client_order_id: str) -> tuple[Fill, ...]:
        found = await super().fills(symbol, client_order_id)
        self.late -= 1
        return () if self.late >= 0 else tuple(replace(it, fee_currency=self.asset) for it in found)


def scene_of(*rules: Rule, book: dict[Key, str | int] | None = None, **more: Any) -> Scene:
    return Scene(book or {BTC: 10}, *rules, **{"wire": FeesByFills, "traits": BY_FILLS, **more})


def charges(scene: Scene) -> list[tuple[str | None, str | None, str | None]]:
    return [(it.symbol, it.data["fee"], it.data["text"]) for it in scene.entries("charged")]


def closed(scene: Scene, *keys: Key) -> Decision:
    decision = scene.decide(dict.fromkeys(keys or (BTC,), 0))
    assert scene.play()[decision.id] == "flat"
    return decision


def test_fees_are_queried_and_journaled_after_the_decision_has_ended() -> None:
    """Each order once, and no query before the decision has ended."""
    scene = scene_of(book={BTC: 10, ETH: 4})
    closed(scene, BTC, ETH)
    assert sorted(charges(scene), key=str) == [("BTC", "0.5000", None), ("ETH", "0.2000", None)]
    assert [it.kind for it in scene.store.entries][-3:] == ["finished", "charged", "charged"]
    assert scene.calls("fills") == 2
    (ended,) = scene.entries("finished")
    first = next(it.left for it in scene.wire.travelled if it.call == "fills")
    assert first > (ended.at - NOW).total_seconds()


def test_no_fee_is_queried_where_the_adapter_does_not_declare_fees_by_fills() -> None:
    """A fee that the venue leaves out stays unknown there."""
    scene = scene_of(traits=VenueTraits())
    closed(scene)
    assert (charges(scene), scene.calls("fills")) == ([], 0)


def test_no_fee_is_queried_of_an_order_whose_report_has_it() -> None:
    """The exchange reports it itself."""
    scene = Scene({BTC: 10}, traits=BY_FILLS)
    closed(scene)
    assert (charges(scene), scene.calls("fills")) == ([], 0)


def test_a_fee_in_another_asset_is_a_text_and_no_number() -> None:
    """0.5 of BNB is not 0.5 USDT."""
    scene = scene_of()
    scene.wire.asset = "BNB"
    closed(scene)
    assert charges(scene) == [("BTC", None, "charged 0.5 BNB")]


def test_fills_that_the_venue_lists_late_are_queried_again() -> None:
    """Twice nothing, then all of it."""
    scene = scene_of()
    scene.wire.late = 2
    closed(scene)
    assert (charges(scene), scene.calls("fills")) == ([("BTC", "0.5000", None)], 3)


def test_fills_that_never_come_leave_the_fee_unknown_with_a_reason() -> None:
    """The queries end."""
    scene = scene_of()
    scene.wire.late = 99
    closed(scene)
    assert charges(scene) == [("BTC", None, "the venue lists fills of 0 contracts, and 10 were filled")]
    assert scene.calls("fills") == TRIES


@pytest.mark.parametrize("mishap", ["down", "lost", "garbled"])
def test_a_failed_fee_query_is_repeated_and_after_all_tries_its_reason_is_journaled(mishap: Mishap) -> None:
    """The venue's breaker, which holds back orders, does not count these failures."""
    breaker = Breaker(failures=1)
    scene = scene_of(Rule("fills", mishap, times=TRIES), closing={"breaker": breaker})
    closed(scene)
    ((_, fee, why),) = charges(scene)
    assert (fee, scene.calls("fills")) == (None, TRIES)
    assert why is not None
    assert why.startswith(f"the fee was queried {TRIES} times: ")
    assert breaker.state == "closed"


def test_a_new_decision_does_not_wait_for_a_fee_query() -> None:
    """While a query that is never answered is on its way, the order of the new decision leaves at once."""
    scene = scene_of(Rule("fills", "silent", times=1), book={BTC: 10, ETH: 4})
    scene.decide({BTC: 0})
    scene.at(3.0, lambda: scene.decide({ETH: 0}))
    assert scene.play() == {"d1": "flat", "d2": "flat"}
    queried = next(it.left for it in scene.wire.travelled if it.call == "fills")
    sent = [it.left for it in scene.wire.travelled if it.call == "submit"]
    assert queried < 3.0 < sent[1]
    assert sent[1] - 3.0 <= 0.25, "a pass that waits takes no longer than that"
    assert sorted(charges(scene), key=str) == [("BTC", "0.5000", None), ("ETH", "0.2000", None)]


def test_a_fee_query_that_a_kill_prevented_is_made_after_the_restart() -> None:
    """Killed half a second after the end, before the first query; a tick reports the account's currency."""
    scene = scene_of()
    scene.decide({BTC: 0})
    scene.at(2.0, lambda: scene.closer.apply_snapshot(statement(scene.exchange)))
    scene.play(kills=[0.7])
    assert scene.entries("finished")[0].at < NOW.replace(microsecond=700_000)
    assert (charges(scene), scene.calls("fills")) == ([("BTC", "0.5000", None)], 1)


def test_a_journaled_fee_is_not_queried_again_after_a_restart() -> None:
    """Killed long after it."""
    scene = scene_of()
    scene.decide({BTC: 0})
    scene.at(20.0, lambda: None)
    scene.play(kills=[10.0])
    assert (len(charges(scene)), scene.calls("fills")) == (1, 1)


def test_fee_queries_keep_to_the_request_share_of_polls() -> None:
    """7 of 40 in ten seconds, half of them reserved for closing: two queries fit at a time, then no more."""
    limits = VenueTraits(
        limits=(RateLimit("weight", 40, 10.0),), costs=(Cost("fills", "weight", units=7),), fees_by_fills=True
    )
    budget = RequestBudgets().of("main", "venue", limits, D("0.5"))
    book: dict[Key, str | int] = {(f"S{number}", "long"): 1 for number in range(6)}
    scene = scene_of(book=book, traits=limits, closing={"budget": budget})
    closed(scene, *book)
    times = [it.left for it in scene.wire.travelled if it.call == "fills"]
    assert len(times) == len(charges(scene)) == 6
    assert all(after - before >= 10.0 for before, after in zip(times, times[2:], strict=False))
    assert scene.wire.meter.refusals == 0


# A venue that rate-limits fee queries


class Limited(FeesByFills):
    """Refuses each query for fills, and asks for `quiet` seconds without requests."""

    quiet: float | None = 60.0

    async def fills(self, symbol: str, client_order_id: str) -> tuple[Fill, ...]:
        await super().fills(symbol, client_order_id)
        raise RateLimitedError("too many of these", self.quiet)


def asked_at(scene: Scene) -> list[float]:
    return [it.left for it in scene.wire.travelled if it.call == "fills"]


@pytest.mark.parametrize(("quiet", "away"), [(None, 300.0), (60.0, 300.0), (200.0, 400.0)])
def test_a_rate_limited_fee_query_is_repeated_once_and_much_later(quiet: float | None, away: float) -> None:
    """Five minutes, or twice the requested pause; after the second refusal the fee stays unknown, with the reason."""
    scene = scene_of(wire=type("Quiet", (Limited,), {"quiet": quiet}))
    closed(scene)
    first, second = asked_at(scene)
    assert away - 1.0 <= second - first <= away + 1.0
    assert charges(scene) == [("BTC", None, "the venue rate-limited 2 fee queries: too many of these")]


def test_a_second_rate_limit_ends_the_fee_queries_of_every_order_of_the_account() -> None:
    """Of six orders five are queried at once, which is one refusal; the next one ends the queries for all six."""
    book: dict[Key, str | int] = {(f"S{number}", "long"): 1 for number in range(6)}
    scene = scene_of(book=book, wire=Limited)
    closed(scene, *book)
    times = asked_at(scene)
    assert len(times) == 10
    assert max(times[:5]) + 300.0 <= min(times[5:])
    assert len(charges(scene)) == 6
    assert {(fee, (why or "")[:34]) for _, fee, why in charges(scene)} == {(None, "the venue rate-limited 2 fee queri")}


def test_a_pause_longer_than_the_query_period_leaves_the_fee_unknown() -> None:
    """An hour of quiet: there is no second query."""
    scene = scene_of(wire=type("Quiet", (Limited,), {"quiet": 3600.0}))
    closed(scene)
    assert charges(scene) == [("BTC", None, "the venue rate-limited requests, and no further fee was queried")]
    assert scene.calls("fills") == 1


def test_another_account_of_the_venue_is_paused_twice_and_no_more() -> None:
    """A minute each time. Its own query, due just after each refusal, is never the next to be refused."""
    time, budgets = VirtualTime(), RequestBudgets()
    one, other = (
        Scene(
            {BTC: 10}, wire=wire, traits=BY_FILLS, time=time, account=name,
            closing={"budget": budgets.of(name, "venue", BY_FILLS)},
        )
        for name, wire in (("one", Limited), ("other", FeesByFills))
    )  # fmt: skip
    watch = budgets.of("other", "venue", BY_FILLS)
    silent: list[float] = []

    async def story() -> None:
        one.closer.adopt(one.decide({BTC: 0}))
        while time.elapsed < 900.0:
            if time.elapsed >= 0.5 and not other.decisions:
                other.closer.adopt(other.decide({BTC: 0}))
            for scene in (one, other):
                await scene.closer.advance()
            if watch.wait(time.elapsed, "snapshot", (), "reading") > 0:
                silent.append(time.elapsed)
            await time.sleep(0.1)

    time.run(story())
    assert one.calls("fills") == 2
    assert len({round(it) for it in silent}) in (120, 121, 122), "two minutes, whose ends are in the middle of a second"
    assert charges(other) == [("BTC", None, "the venue rate-limited requests, and no further fee was queried")]
    assert asked_at(other) == []


def test_a_full_request_budget_is_no_refusal() -> None:
    """One query in twenty seconds fits, for three orders: each is queried once, without a long pause."""
    limits = VenueTraits(
        limits=(RateLimit("fills", 1, 20.0),), costs=(Cost("fills", "fills", units=1),), fees_by_fills=True
    )
    budget = RequestBudgets().of("main", "venue", limits, D("0"))
    book: dict[Key, str | int] = {(f"S{number}", "long"): 1 for number in range(3)}
    scene = scene_of(book=book, traits=limits, closing={"budget": budget})
    closed(scene, *book)
    assert (len(charges(scene)), scene.calls("fills")) == (3, 3)
    assert asked_at(scene)[-1] < 120.0


# Damaged answers


class DamagedFills(FeesByFills):
    """Applies `made` to the fills of BTC."""

    made: Callable[[tuple[Fill, ...]], Any]

    async def fills(self, symbol: str, client_order_id: str) -> tuple[Fill, ...]:
        found = await super().fills(symbol, client_order_id)
        return type(self).made(found) if symbol == "BTC" else found


def changed(**fields: Any) -> Callable[[tuple[Fill, ...]], Any]:
    return lambda found: [replace(found[0], **fields)] * 2


HUGE = D("9E+999999")


@pytest.mark.parametrize(
    "made",
    [
        changed(fee_currency=["x"]), changed(fee_currency=5), changed(amount=HUGE), changed(fee=HUGE),
        changed(fee=D("1E-500000")), changed(fee=D("NaN")), changed(amount=D("NaN")), changed(amount=1.0),
        changed(fee=""), lambda _: None, lambda _: {"a": 1}, lambda found: (it for it in [*found, 1 / 0]),
    ],
    ids=["asset list", "asset number", "amounts", "fee", "tiny", "NaN", "amount NaN", "float", "text", "None", "dict",
         "raises"],
)  # fmt: skip
def test_a_damaged_answer_counts_as_a_try_and_leaves_that_fee_unknown(
    made: Callable[[tuple[Fill, ...]], Any],
) -> None:
    """The other order's fee is known, the decision that is made meanwhile is carried out, and no pass fails."""
    scene = scene_of(book={BTC: 10, ETH: 4}, wire=type("Made", (DamagedFills,), {"made": staticmethod(made)}))
    closed(scene, BTC, ETH)
    (eth, btc) = charges(scene)
    assert eth == ("ETH", "0.2000", None)
    assert (btc[0], btc[1], scene.calls("fills")) == ("BTC", None, TRIES + 1)
    assert (btc[2] or "").startswith(f"the fee was queried {TRIES} times: ")
    assert len(btc[2] or "") < 600


@pytest.mark.parametrize("asset", ["X" * 100_000, "B\ud800"])
def test_an_asset_name_is_journaled_as_far_as_it_can_be_stored_and_printed(asset: str) -> None:
    """A lone surrogate has no bytes, and a name of 100,000 characters is cut."""
    scene = scene_of()
    scene.wire.asset = asset
    closed(scene)
    ((_, fee, why),) = charges(scene)
    assert (fee, (why or "")[:13]) == (None, f"charged 0.5 {asset[0]}")
    assert 0 < len((why or "").encode().decode()) <= 500


# Which orders


def test_orders_without_a_fee_are_found_without_a_second_read_of_the_journal() -> None:
    """A decision over many accounts has a long journal, and each of them would read all of it."""
    scene = scene_of()
    reads: list[str] = []
    read = scene.store.journal

    def counted(decision: str | None = None) -> Any:
        reads.append("after" if scene.entries("finished") else "before")
        return read(decision)

    scene.store.journal = counted  # type: ignore[method-assign]  # counted, not changed
    closed(scene)
    assert charges(scene) == [("BTC", "0.5000", None)]
    assert {*reads} == {"before"}


def test_a_restart_queries_the_fees_of_its_own_account_only() -> None:
    """The decision also traded on another account, whose order lacks its fee too."""
    scene = scene_of()
    scene.decide({BTC: 0})
    theirs = JournalEntry(
        "d1", "filled", NOW, "theirs", "BTC", "long", "of-theirs", 1, {"filled": "5", "price": "100", "fee": None}
    )
    scene.at(0.6, lambda: scene.store.append(theirs))
    scene.at(2.0, lambda: scene.closer.apply_snapshot(statement(scene.exchange)))
    scene.play(kills=[0.7])
    assert (charges(scene), scene.calls("fills")) == ([("BTC", "0.5000", None)], 1)


# Adding up


def fill(fee: str | None, asset: str | None = "USDT") -> Fill:
    return Fill("f", NOW, "BTC", "sell", D(1), D(100), fee=None if fee is None else D(fee), fee_currency=asset)


@pytest.mark.parametrize(
    ("fills", "fee", "why"),
    [
        ([fill("0.1"), fill("0.2")], "0.3", None),
        ([fill("0.1"), fill("0.2", None)], "0.3", None),
        ([fill("-0.1")], "-0.1", None),
        ([fill("0.1"), fill("0", "BNB")], "0.1", None),
        ([fill("0", "BNB")], "0", None),
        ([fill("0.1"), fill("0.0010", "BNB"), fill("0.002", "BNB")], None, "charged 0.1 USDT and 0.003 BNB"),
        ([fill("0.1"), fill(None)], None, "the venue's fills carry no fee"),
    ],
)
def test_fees_add_up_in_the_account_s_currency_only(fills: list[Fill], fee: str | None, why: str | None) -> None:
    """A fee without an asset is in the account's currency; a zero fee in another asset changes nothing."""
    assert total_fee(fills, "USDT") == (None if fee is None else D(fee), why)
