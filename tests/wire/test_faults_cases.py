"""The named cases of closing, over the wire: the same stories, told through a venue's own words by the real client.

Each case takes its turn: at one venue in `make test`, of those that can tell it, at the others in `make test-venues`.
Whether a venue can goes by `NOT_AT` and `PARTLY`, and by the account mode that a case wants (`mode`, `SPOT`): one on a
spot account is told at okx each time. One that cannot be told over any wire is in `NOT_OVER_THE_WIRE` with its reason,
one that takes too long for every change in `BY_HAND`, or in `AT_ONE_VENUE`, which `make test-venues` tells;
`python -m tests.wire.faults cases VENUE …` tells them all.
"""

from __future__ import annotations

import functools
import importlib
from collections.abc import Callable, Iterator
from typing import Any, Final

import pytest

from tests.rotation import LEFT, at_its_turn
from tests.wire.carriers import ALL_MODES, CARRIERS
from tests.wire.scene import NotOverTheWireError, carried_by

MODULES: Final = (
    "decisions", "locks", "contradictory_answers", "concurrent_trading", "venue_rules", "concurrent_decisions", "spot",
    "unknown_answers", "close_execution", "venue_failures",
)  # fmt: skip
OWN_WIRE: Final = "the test has a wire of its own, whose trouble no server can make"
MADE_UP: Final = "it is about limits of the test's making, which no venue counts by"
PAPER: Final = "it closes at the paper venue, not in a scene"
HOP: Final = "holdings are told against the account's currency, so that nothing is ever X/BTC"
NOT_OVER_THE_WIRE: Final[dict[str, str]] = {
    "test_c2_an_acknowledged_order_is_not_written_off_at_a_first_denial": OWN_WIRE,
    "test_c2_a_report_that_contradicts_itself_is_queried": OWN_WIRE,
    "test_c14_slow_orders_do_not_time_out_because_polls_are_fast": OWN_WIRE,
    "test_c22_protection_is_restored_from_a_snapshot_made_after_the_fill": OWN_WIRE,
    "test_c19_a_hop_that_sold_nothing_of_its_proceeds_is_not_flat": OWN_WIRE,
    "test_c19_the_second_hop_sells_the_proceeds_of_the_first_and_nothing_held_before": HOP,
    "test_c19_a_hop_whose_answer_is_lost_is_not_sold_twice": HOP,
    "test_c19_killed_between_the_hops_the_second_is_done_once": HOP,
    "test_c14_a_whole_book_close_is_requested_once_and_its_residual_is_closed_one_by_one":
        "none of the venues closes a whole book in one request",
    "test_c14_a_close_within_the_venues_limits_is_never_refused_and_never_banned": MADE_UP,
    "test_c14_a_close_without_known_limits_is_refused_and_ends_all_the_same": MADE_UP,
    "test_c14_a_ban_is_waited_out_and_other_venues_continue": MADE_UP,
    "test_c11_where_market_orders_are_disabled_a_limit_order_is_sent":
        "no venue tells of a state limit_only in its rules",
    "test_c24_an_order_whose_status_stays_unknown_is_reported_as_abandoned":
        "a refusal that is garbled reads as a venue that is down, and that question has no end",
    "test_l3_the_bot_that_buys_while_the_switch_sells_is_locked_out_from_before_the_first_order": PAPER,
    "test_c20_after_the_close_the_lock_stays_and_a_reopened_position_is_not_closed": PAPER,
    "test_c1_an_empty_book_with_margin_in_use_is_not_flat_though_our_orders_would_explain_it":
        "the adapter itself does not believe such an answer, in words of its own",
}  # fmt: skip
"""Case → why it cannot be told over a wire."""
BY_HAND: Final = frozenset({
    "test_c24_an_outage_of_eleven_minutes_ends_no_query",
    "test_c15_a_breaker_that_has_opened_closes_when_the_venue_is_back",
})  # fmt: skip
"""Minutes of outage are thousands of requests."""
AT_ONE_VENUE: Final = frozenset({
    "test_c3_killed_at_any_moment_the_close_continues_where_it_was",
    "test_a_higher_level_does_not_wait_for_the_slices_of_another_position",
})  # fmt: skip
OLD: Final = "that an answer is old is an adapter's word; over a wire it looks like any other"
NO_NUMBER: Final = "the wire-level venue itself cannot reckon the account with a price that is no number"
NO_SUCH_MODE: Final = {
    "bitget": "Bitget has no market that lets in makers only: a contract is listed, normal, maintain, limit_open, "
    "restrictedAPI or off; orders that rest are told there by a declared ladder",
    "mexc": "MEXC has no market that lets in makers only: a contract is enabled, in delivery, completed, offline or "
    "paused; orders that rest are told there by a declared ladder",
}
PARTLY: Final[dict[str, str]] = {
    **{
        f"{case}[{venue}-post_only]": why
        for venue, why in NO_SUCH_MODE.items()
        for case in (
            "test_c2_a_denial_and_a_broken_connection_do_not_end_an_order_that_rests",
            "test_c11_in_every_market_state_the_close_ends_with_a_true_status",
            "test_c24_a_resting_order_is_not_taken_for_gone_while_the_open_orders_are_unknown",
        )
    },
    **{f"test_c1_a_missing_or_empty_answer_is_never_taken_for_flat[{it}-stale]": OLD for it in CARRIERS},
    **{
        f"test_c16_a_missing_price_aborts_nothing[{venue}-{price}]": NO_NUMBER
        for venue in ("bitget", "mexc")
        for price in ("NaN", "Infinity")
    },
    "test_c11_in_every_market_state_the_close_ends_with_a_true_status[mexc-reduce_only]":
        "a contract of MEXC is enabled, in delivery, completed, offline or paused: none is for reducing only",
    "test_c22_killed_while_unprotected_the_process_restores_protection[mexc-0.15]":
        "conditional orders have no client id at MEXC: while there are any, an order that was under way when the "
        "process was killed may be one of them, and is asked about for ten minutes and given up",
}  # fmt: skip
"""Parameters of cases that cannot be told, though the case can."""
ASKED_TOO: Final = (
    "an order is answered by its number only, so both are asked about; one that is heard ends the wait for the silent "
    "one after a second, and all is over before anyone trades"
)
BESIDE: Final = (
    "an order is answered by its number only: how far it was filled is asked beside the reading that says flat, which "
    "is made after the order, and before that is known"
)
SLICE_BY_SLICE: Final = (
    "an order is answered by its number only: the fill of each slice is asked for, and the account is read beside"
)
A_TICK: Final = "told by its number only, the order is asked about first, and flat falls into the next tick of 0.5 s"
NOT_AT: Final[dict[tuple[str, str], str]] = {
    **{
        (venue, case): why
        for venue in ("bybit", "okx", "bitget", "mexc")
        for case, why in {
            "test_c4_a_poll_that_waited_for_a_slow_query_is_not_taken_for_a_current_one": ASKED_TOO,
            "test_slices_that_fill_follow_one_another_with_few_polls_in_between": SLICE_BY_SLICE,
        }.items()
    },
    ("bybit", "test_c4_flat_is_proved_by_a_poll_made_after_the_last_order"): BESIDE,
    ("okx", "test_c4_flat_is_proved_by_a_poll_made_after_the_last_order"): BESIDE,
    ("mexc", "test_c4_flat_is_proved_by_a_poll_made_after_the_last_order"): BESIDE,
    ("bitget", "test_c14_one_silent_venue_delays_no_other"): A_TICK,
}  # fmt: skip
"""Venue and beginning of a case's name → why it is not told there."""
SPOT: Final = frozenset({
    "test_c1_one_wrong_answer_ends_nothing_while_an_order_on_the_position_is_of_unknown_status",
    "test_c9_dust_of_a_holding_is_reported_and_is_no_error",
    "test_c24_of_a_position_without_reduce_only_at_most_the_rest_is_sent",
})  # fmt: skip
"""Cases on a spot account whose parameters do not say so."""
DEFECTS: Final[dict[str, str]] = {}
"""Parameters of cases that fail → the defect. One that passes again fails here, until it is taken out."""


def left_out(venue: str, name: str, whole: str) -> str | None:
    """Why a case is not told at a venue; None if it is. `whole`: its name with the venue and its parameters."""
    for (where, beginning), why in NOT_AT.items():
        if where == venue and name.startswith(beginning):
            return why
    return PARTLY.get(whole)


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """At every venue; `leave_to_its_turn` says at which one now."""
    metafunc.parametrize("carried", list(CARRIERS), indirect=True)


def leave_to_its_turn(item: pytest.Function) -> None:
    """Now at the one whose turn it is among those where the case is told with its parameters, later at the others."""
    name, venue, mode = item.originalname, item.callspec.params["carried"], item.callspec.params.get("mode")
    if name in SPOT:
        mode = "spot"
    told = [
        each
        for each, carrier in CARRIERS.items()
        if left_out(each, name, item.name.replace(f"[{venue}", f"[{each}", 1)) is None
        and (mode not in ALL_MODES or mode in carrier.modes)
    ]
    if name in AT_ONE_VENUE or venue != at_its_turn(told or CARRIERS, name):
        item.add_marker(LEFT)


def mark_defect(item: Any, whole: str) -> None:
    """A case that fails is expected to."""
    if whole in DEFECTS:
        item.add_marker(pytest.mark.xfail(reason=DEFECTS[whole], strict=True))


@pytest.fixture(autouse=True)
def carried(request: pytest.FixtureRequest) -> Iterator[None]:
    """Every scene of the case is at this venue."""
    name = request.node.originalname
    if name in AT_ONE_VENUE and request.param != "binanceusdm":
        pytest.skip(f"long: told at binanceusdm only, here by `python -m tests.wire.faults cases {request.param}`")
    if (why := left_out(request.param, name, request.node.name)) is not None:
        pytest.skip(why)
    mark_defect(request.node, request.node.name)
    with carried_by(request.param):
        yield


def told_where_it_can_be(case: Callable[..., None]) -> Callable[..., None]:
    """The case; it is skipped, with the reason, where the venue on loopback lacks the account mode that it wants."""

    @functools.wraps(case)
    def telling(**arguments: Any) -> None:
        try:
            case(**arguments)
        except NotOverTheWireError as error:
            pytest.skip(str(error))

    return telling


def _cases() -> dict[str, Callable[..., None]]:
    found: dict[str, Callable[..., None]] = {}
    for module in MODULES:
        for name, case in vars(importlib.import_module(f"tests.cases.test_{module}")).items():
            if name.startswith("test_"):
                assert name not in found, f"two cases are called {name}"
                found[name] = case
    assert set(found) >= {*NOT_OVER_THE_WIRE, *BY_HAND, *AT_ONE_VENUE}, "a case that is left out is not there any more"
    return found


globals().update(
    {name: told_where_it_can_be(case) for name, case in _cases().items() if name not in {*NOT_OVER_THE_WIRE, *BY_HAND}}
)
