"""One decision's job on one account: how it ends, what is left, what it cost, and how much a hop may sell."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from decimal import Decimal
from typing import Any

import pytest

from killswitch.execution.account_context import AccountContext
from killswitch.execution.closing_pace import ClosingPace
from killswitch.execution.decide.ladder import MARKET
from killswitch.execution.decide.target_verdict import TargetAction, TargetVerdict
from killswitch.execution.order_pass.order_builder import build_order
from killswitch.execution.state.account_job import AccountJob
from killswitch.journal.codec import decode, encode
from killswitch.journal.entries import Entry, Finished, PositionKey
from killswitch.journal.lifecycle import TargetState
from killswitch.journal.targets import PositionTarget
from killswitch.model.decision import Cancel, Decision, Intent, Rung, Unwinding, decode_decision, encode_decision
from killswitch.model.snapshot import Closing, Instrument, Position, Residual
from killswitch.model.store import JournalEntry, JournalKind
from killswitch.ratelimit.breaker import Breaker
from killswitch.ratelimit.budget import RequestBudget
from tests.honest_venue import NOW, HonestVenue, VirtualClock

D = Decimal
FLAT = TargetVerdict(TargetAction.NOTHING)
DUST = TargetVerdict(TargetAction.BLOCKED, reason="dust")
TIRED = TargetVerdict(TargetAction.GIVE_UP, reason="tired")


def intent(symbol: str = "BTC", contracts: str = "10", target: str = "0", **fields: Any) -> Intent:
    given: dict[str, Any] = {"account": "main", "position_side": "long", "side": "sell", "reduce_only": True, "rank": 1}
    return Intent(symbol=symbol, contracts=D(contracts), target=D(target), **(given | fields))


def decision(*intents: Intent, cancels: tuple[Cancel, ...] = (), unwinding: Unwinding | None = None) -> Decision:
    return Decision(
        id="d1", as_of=NOW, policy="p", policy_set="sha256:0", scope="account/main", mode="enforce", stage="close",
        level=1, previous_level=0, intents=intents, cancels=cancels, unwinding=unwinding,
    )  # fmt: skip


def entry(
    kind: JournalKind, symbol: str | None = "BTC", name: str | None = None, account: str = "main", sequence: int = 0,
    **data: str | None,
) -> Entry:  # fmt: skip
    side = None if symbol is None else "long"
    return decode(JournalEntry("d1", kind, NOW, account, symbol, side, name, 1, data, sequence))


def job_of(*intents: Intent, entries: tuple[Entry, ...] = (), **fields: Any) -> AccountJob:
    return AccountJob(decision(*(intents or (intent(),)), **fields), "main", entries)


def result(
    of: AccountJob, verdicts: Sequence[TargetVerdict], shown: Mapping[PositionKey, Decimal]
) -> dict[str, str | None]:
    """The row in which the job's end is stored."""
    return encode(of.result(NOW, verdicts, shown)).data


def sold(symbol: str, amount: str, price: str | None = "1", fee: str | None = "0") -> tuple[Entry, Entry]:
    return (
        entry("sending", symbol, f"o-{symbol}", amount=amount, mark="1", value="1"),
        entry("filled", symbol, f"o-{symbol}", filled=amount, price=price, fee=fee),
    )


def test_a_job_applies_only_entries_of_its_account() -> None:
    """Entries and intents of another account are skipped; the first `planned` is where it begins."""
    other = intent(account="other", symbol="ETH")
    of = job_of(intent(), other, entries=(
        entry("planned", sequence=3), entry("planned", sequence=7), entry("finished", account="other", sequence=9),
    ))  # fmt: skip
    assert ([target.symbol for target in of.targets], of.planned, of.finished) == (["BTC"], 3, None)


def test_an_intent_without_a_fresh_mark_is_sent_at_market_and_the_others_within_their_bound() -> None:
    """A stale mark of 100 would be a limit of 98; after a restart the stored intent says the same."""
    ladder = (Rung("limit_ioc"), Rung("market", tries=2), Rung("limit", D(3)))
    intents = (intent(band=D("0.02"), at_market=True), intent("ETH", band=D("0.02")))
    of = job_of(*intents, unwinding=Unwinding("operator", ladder, is_sliced=False))
    context = AccountContext(
        "main", HonestVenue({}), VirtualClock(), ClosingPace(), lambda _: None, RequestBudget.unlimited(), Breaker()
    )
    sent = [
        build_order(context, of, target, D(10), D(10), Position(target.symbol, "long", D(10), mark_price=D(100)), None)
        for target in of.targets
    ]
    assert [(each.request.type, each.request.price) for each in sent] == [("market", None), ("limit", D(98))]
    assert [getattr(each.entry, "rung", None) for each in sent] == [1, 0]
    stored = decode_decision(encode_decision(decision(*intents)))
    assert [each.at_market for each in stored.intents] == [True, False]


def test_a_job_uses_the_declared_ladder_or_the_market() -> None:
    """An unwinding without steps declares none."""
    rungs = (Rung("limit_ioc"), Rung("market"))
    assert job_of(unwinding=Unwinding("u", ladder=rungs)).ladder == rungs
    assert job_of(unwinding=Unwinding("u")).ladder == MARKET
    assert job_of().ladder == MARKET


def test_a_finished_entry_ends_every_target() -> None:
    """Whether it was at its target or not."""
    end = entry("finished", None, status="flat")
    of = job_of(intent(), intent("ETH"), entries=(entry("planned"), end))
    assert ([target.state for target in of.targets], of.finished) == ([TargetState.OVER, TargetState.OVER], end)


def test_a_whole_book_close_settles_the_targets_without_an_order_in_flight() -> None:
    """One order is in flight: its target waits for it as before; nothing has finished."""
    of = job_of(intent(), intent("ETH"), entries=(entry("sending", "BTC", "o1", amount="1"), entry("swept", None)))
    assert [(target.symbol, target.state, target.is_in_whole_close) for target in of.targets] == [
        ("BTC", TargetState.SENDING, False), ("ETH", TargetState.SETTLED, True)
    ]  # fmt: skip
    assert of.finished is None


def test_entries_about_no_target_of_the_job_change_nothing() -> None:
    """Another symbol, or none."""
    of = job_of(entries=(entry("sending", "ETH", "o1", amount="1"), entry("sending", None, "o2", amount="1")))
    assert [target.state for target in of.targets] == [TargetState.READY]
    assert of.target_of(entry("sending", "ETH")) is None
    assert of.target_of(entry("sending", None)) is None
    assert of.target_of(entry("sending")) is of.targets[0]
    assert (of.target_at(("BTC", "long")), of.target_at(("BTC", "short"))) == (of.targets[0], None)


def test_a_position_is_named_by_symbol_and_side() -> None:
    """Both are needed; an entry that lacks one has no key."""
    assert decode(JournalEntry("d1", "planned", NOW, "main", "BTC", "short")).key == ("BTC", "short")
    assert decode(JournalEntry("d1", "planned", NOW, "main", "BTC", "long")).key == ("BTC", "long")
    assert decode(JournalEntry("d1", "planned", NOW, "main", "BTC", None)).key is None
    assert decode(JournalEntry("d1", "planned", NOW, "main", None, "long")).key is None


ENTRY, STOP, OTHER = (
    Cancel("main", "BTC", "e1", "entry"), Cancel("main", "BTC", "s1", "protection"),
    Cancel("main", "ETH", "s2", "protection"),
)  # fmt: skip


def test_entries_are_cancelled_at_once_and_protection_after_closing_or_when_it_blocks() -> None:
    """Only the protection of the symbol whose close the venue refuses for it."""
    foreign = Cancel("other", "BTC", "f1", "entry")
    of = job_of(intent(), intent("ETH"), cancels=(ENTRY, STOP, OTHER, foreign))
    assert of.due_cancels(after_closing=False) == [ENTRY]
    assert of.due_cancels(after_closing=True) == [ENTRY, STOP, OTHER]
    of.apply(entry("sending", "BTC", "o1", amount="1"))
    of.apply(entry("rejected", "BTC", "o1", reason="blocked_by_order"))
    assert of.due_cancels(after_closing=False) == [ENTRY, STOP]


def test_a_cancel_that_is_done_or_failed_is_no_longer_due() -> None:
    """Done: gone; refused: a reason why the job did not end flat."""
    of = job_of(cancels=(ENTRY, STOP, OTHER))
    of.apply(entry("cancelled", None, order="e1"))
    assert of.due_cancels(after_closing=True) == [STOP, OTHER]
    of.cannot_cancel(STOP, "too late")
    assert of.due_cancels(after_closing=True) == [OTHER]
    assert (of.cancels_all("e1"), of.cancels_all("s1"), of.cancels_all("x")) == (True, True, False)
    said = result(of, [FLAT], {})
    assert said["status"] == "blocked"
    assert all(part in (said["reason"] or "") for part in ("s1", "too late"))


def test_a_flat_job_reports_its_cost() -> None:
    """Fees of 1 and 2 on two positions sold at their marks; nothing is left, and no reason given.

    No mark was planned with, so what the market moved before the orders is unknown.
    """
    of = job_of(intent(), intent("ETH"), entries=(*sold("BTC", "10", fee="1"), *sold("ETH", "10", fee="2")))
    assert result(of, [FLAT, FLAT], {("BTC", "long"): D(0), ("ETH", "long"): D(0)}) == {
        "status": "flat", "reason": None, "cost": "3", "delay": None
    }  # fmt: skip


def test_a_partly_unknown_cost_is_unknown_and_a_gain_is_no_cost() -> None:
    """None, and 0."""
    assert job_of(intent(), intent("ETH"), entries=(*sold("BTC", "10"), *sold("ETH", "10", fee=None))).cost() is None
    assert job_of(entries=sold("BTC", "10", price="2")).cost() == D(0)
    unknown = result(job_of(entries=sold("BTC", "10", fee=None)), [FLAT], {})
    assert unknown["cost"] is None


@pytest.mark.parametrize(
    ("verdicts", "status"),
    [
        ((DUST,), "blocked"),
        ((TIRED,), "residual"),
        (
            (DUST, TIRED),
            "residual",
        ),
        (
            (TIRED, TargetVerdict(TargetAction.ABANDON, reason="lost")),
            "abandoned",
        ),
    ],
)
def test_the_status_is_the_worst_of_the_targets_with_every_reason(
    verdicts: tuple[TargetVerdict, ...], status: str
) -> None:
    """Blocked only if the venue's rules alone are the reason; an order of unknown status outweighs the rest."""
    said = result(job_of(), [FLAT, *verdicts], {("BTC", "long"): D(4)})
    assert (said["status"], said["reason"]) == (status, "; ".join(verdict.reason or "" for verdict in verdicts))
    assert said["left long BTC"] == "4"


def test_an_abandoned_order_is_named_though_every_target_is_reached() -> None:
    """The job ends abandoned, and not flat."""
    of = job_of(entries=(
        entry("sending", "BTC", "o1", amount="1"), entry("set_aside", "BTC", "o1"), entry("abandoned", "BTC", "o1"),
    ))  # fmt: skip
    said = result(of, [FLAT], {})
    assert (said["status"], "o1" in (said["reason"] or ""), said["cost"]) == ("abandoned", True, None)


def test_the_residual_is_stored_for_each_position_and_read_back() -> None:
    """Above the target by 4; a position at its target is not listed."""
    of = job_of(intent(target="2", contracts="8"), intent("ETH", position_side="short", side="buy"))
    said = result(of, [TIRED], {("BTC", "long"): D(6), ("ETH", "short"): D(0)})
    assert {key: value for key, value in said.items() if key.startswith("left")} == {"left long BTC": "4"}
    of.apply(decode(JournalEntry("d1", "finished", NOW, "main", data=said)))
    assert of.closing({}) == Closing(
        "d1", "residual", (Residual("main", "BTC", "long", D(4)),), D(0), "account/main"
    )  # fmt: skip


def test_an_unfinished_job_reports_its_progress() -> None:
    """Planned until an order was sent; then closing, with what is left by the venue, or by its fills where unknown."""
    of = job_of(intent(target="2", contracts="8"))
    left = Residual("main", "BTC", "long", D(8))
    assert of.closing({}) == Closing("d1", "planned", (left,), D(0), "account/main")
    of.apply(entry("sending", "BTC", "o1", amount="8", mark="1", value="1"))
    of.apply(entry("filled", "BTC", "o1", filled="3", price="1", fee="1"))
    assert of.closing({}) == Closing("d1", "closing", (Residual("main", "BTC", "long", D(5)),), D(1), "account/main")
    shown = of.closing({("BTC", "long"): D(4)})
    assert shown.residual == (Residual("main", "BTC", "long", D(2)),)
    of.apply(entry("verified", position="2", target="2"))
    assert of.closing({("BTC", "long"): D(9)}).residual == ()


def test_a_position_that_was_at_its_target_from_the_start_counts_as_begun() -> None:
    """Nothing had to leave for it."""
    assert job_of(entries=(entry("verified", position="0", target="0"),)).closing({}).status == "closing"


@pytest.mark.parametrize(
    ("said", "status"),
    [("flat", "flat"), ("residual", "residual"), ("blocked", "blocked"), ("abandoned", "abandoned"), ("x", "abandoned"),
     (None, "abandoned")],
)  # fmt: skip
def test_an_unknown_status_counts_as_abandoned(said: str | None, status: str) -> None:
    """A status of a later version, or none."""
    finished = entry("finished", None, status=said)
    assert isinstance(finished, Finished)
    assert finished.final_status == status


def hops(*sales: str, target: str = "0") -> tuple[Intent, ...]:
    pairs = (
        (
            intent(symbol, purpose="hop"),
            intent("BTC/USDT", target=target, purpose="hop", after=2 * number, rank=2),
        )
        for number, symbol in enumerate(sales)
    )
    return tuple(each for pair in pairs for each in pair)


def hop(of: AccountJob) -> PositionTarget:
    return next(target for target in of.targets if target.symbol == "BTC/USDT")


def test_a_hop_sells_the_proceeds_of_the_sales_before_it() -> None:
    """10 X at 0.02 and 10 Y at 0.03 came to 0.5: it sells that, and not the 1 of before."""
    of = job_of(*hops("X", "Y", target="1"), entries=(*sold("X", "10", "0.02"), *sold("Y", "10", "0.03")))
    of.supply(hop(of), D("1.5"), None)
    assert (hop(of).decided, hop(of).largest, of.short, of.unsupplied) == (D("0.5"), D("0.5"), set(), set())


def test_up_to_two_percent_missing_is_a_fee_and_more_is_a_lag() -> None:
    """0.49 of 0.5 is a fee; below that the hop is short until it arrives."""
    of = job_of(*hops("X"), entries=sold("X", "10", "0.05"))
    target = hop(of)
    of.supply(target, D("0.489"), None)
    assert (target.decided, of.short) == (D("0.489"), {target.name})
    of.supply(target, D("0.49"), None)
    assert (target.decided, of.short) == (D("0.49"), set())
    of.supply(target, D("0.7"), None)
    assert target.decided == D("0.5")


def test_what_a_hop_has_sold_is_not_supplied_again() -> None:
    """0.2 sold of 0.5, 0.3 shown: all of it has arrived; nothing shown: what is sold is decided."""
    of = job_of(*hops("X"), entries=(*sold("X", "10", "0.05"), *sold("BTC/USDT", "0.2")))
    of.supply(hop(of), D("0.3"), None)
    assert (hop(of).decided, of.short) == (D("0.5"), set())
    of.supply(hop(of), D(0), None)
    assert (hop(of).decided, of.short) == (D("0.2"), {hop(of).name})


def test_a_balance_below_the_kept_amount_supplies_nothing() -> None:
    """Somebody has sold of the 1 that was kept: nothing is the hop's, and never less than nothing."""
    of = job_of(*hops("X", target="1"), entries=sold("X", "10", "0.05"))
    of.supply(hop(of), D("0.2"), None)
    assert (hop(of).decided, of.short) == (D(0), {hop(of).name})


def test_a_hop_sells_whole_steps_of_contracts_of_their_size() -> None:
    """0.505 in contracts of 0.1 are 5.05, in steps of 0.2 five."""
    of = job_of(*hops("X"), entries=sold("X", "10", "0.0505"))
    of.supply(hop(of), D(9), Instrument("BTC/USDT", contract_size=D("0.1"), amount_step=D("0.2")))
    assert hop(of).decided == D("5.0")
    of.supply(hop(of), D(9), Instrument("BTC/USDT"))
    assert hop(of).decided == D("0.505")


def test_a_hop_after_a_sale_of_unknown_proceeds_is_not_supplied() -> None:
    """It is unknown which part is the sale's."""
    of = job_of(*hops("X", "Y"), entries=(*sold("X", "10"), *sold("Y", "10", price=None)))
    of.supply(hop(of), D(9), None)
    assert (of.unsupplied, hop(of).decided) == ({hop(of).name}, D(0))


def test_only_hops_after_a_sale_are_supplied() -> None:
    """A position is reduced, and a first hop sells, by what was decided."""
    for one in (intent(), intent(purpose="hop"), intent(after=0)):
        of = job_of(one)
        before = of.targets[0].decided
        of.supply(of.targets[0], D(99), None)
        assert (of.targets[0].decided, of.unsupplied, of.short) == (before, set(), set())


@pytest.mark.parametrize("place", [2, 99, -1])
def test_a_hop_after_an_unknown_intent_is_not_supplied(place: int) -> None:
    """The index is none of its intents: the proceeds are unknown."""
    of = job_of(intent("X", purpose="hop"), intent("BTC/USDT", purpose="hop", after=place, rank=2))
    of.supply(hop(of), D(9), None)
    assert of.unsupplied == {hop(of).name}
