"""The named cases of closing over the wire: the same cases through a venue's own payloads and the real client.

Each case takes its turn: of the venues that support it, one runs it in `make test`, the others in `make test-venues`.
Whether a venue supports a case depends on `NOT_AT` and `PARTLY`, and on the account mode of the case (`mode`, `SPOT`):
a case on a spot account always runs at okx. A case that no wire supports is in `NOT_OVER_THE_WIRE` with its reason, one
that takes too long for every change in `MANUAL_ONLY`, or in `AT_ONE_VENUE`, which `make test-venues` runs; and
`python -m tests.wire.faults cases VENUE …` runs all of them.
"""

from __future__ import annotations

import functools
import importlib
from collections.abc import Callable, Iterator
from typing import Any, Final

import pytest

from tests.rotation import LEFT, at_its_turn
from tests.wire.adapter_wire import NotOverTheWireError, closing_over
from tests.wire.closing_venues import ALL_MODES, CLOSING_VENUES

MODULES: Final = (
    "decisions", "locks", "contradictory_answers", "concurrent_trading", "venue_rules", "concurrent_decisions", "spot",
    "unknown_answers", "close_execution", "venue_failures",
)  # fmt: skip
OWN_WIRE: Final = "the test has a wire of its own, whose faults no server can produce"
INVENTED_LIMITS: Final = "the test invents limits that no venue counts by"
PAPER: Final = "the test closes at the paper venue, not in a scene"
HOP: Final = "holdings are reported against the account's currency, so that no market is ever X/BTC"
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
    "test_c14_a_close_within_the_venues_limits_is_never_refused_and_never_banned": INVENTED_LIMITS,
    "test_c14_a_close_without_known_limits_is_refused_and_ends_all_the_same": INVENTED_LIMITS,
    "test_c14_a_ban_is_waited_out_and_other_venues_continue": INVENTED_LIMITS,
    "test_c11_where_market_orders_are_disabled_a_limit_order_is_sent":
        "no venue reports a state limit_only in its rules",
    "test_c24_an_order_whose_status_stays_unknown_is_reported_as_abandoned":
        "a garbled refusal reads as a venue that is down, and then the query never ends",
    "test_l3_the_bot_that_buys_while_the_switch_sells_is_locked_out_from_before_the_first_order": PAPER,
    "test_c20_after_the_close_the_lock_stays_and_a_reopened_position_is_not_closed": PAPER,
    "test_c1_an_empty_book_with_margin_in_use_is_not_flat_though_our_orders_would_explain_it":
        "the adapter itself rejects such an answer, with its own message",
}  # fmt: skip
"""Case → why no wire supports it."""
MANUAL_ONLY: Final = frozenset({
    "test_c24_an_outage_of_eleven_minutes_ends_no_query",
    "test_c15_a_breaker_that_has_opened_closes_when_the_venue_is_back",
})  # fmt: skip
"""Minutes of an outage take thousands of requests."""
AT_ONE_VENUE: Final = frozenset({
    "test_c3_killed_at_any_moment_the_close_continues_where_it_was",
})  # fmt: skip
STALE: Final = "only an adapter marks an answer as stale; over a wire it looks like any other"
NO_NUMBER: Final = "the wire-level venue itself cannot value the account at a price that is not a number"
NO_SUCH_MODE: Final = {
    "bitget": "Bitget has no post-only market: a contract is listed, normal, maintain, limit_open, "
    "restrictedAPI or off; resting orders are tested there by a declared ladder",
    "mexc": "MEXC has no post-only market: a contract is enabled, in delivery, completed, offline or "
    "paused; resting orders are tested there by a declared ladder",
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
    **{f"test_c1_a_missing_or_empty_answer_is_never_taken_for_flat[{it}-stale]": STALE for it in CLOSING_VENUES},
    **{
        f"test_c16_a_missing_price_aborts_nothing[{venue}-{price}]": NO_NUMBER
        for venue in ("bitget", "mexc")
        for price in ("NaN", "Infinity")
    },
    "test_c11_in_every_market_state_the_close_ends_with_a_true_status[mexc-reduce_only]":
        "a contract of MEXC is enabled, in delivery, completed, offline or paused; no state is reduce-only",
    "test_c22_killed_while_unprotected_the_process_restores_protection[mexc-0.15]":
        "conditional orders have no client id at MEXC: while there are any, an order that was in flight when the "
        "process was killed may be one of them, and is queried for ten minutes and abandoned",
}  # fmt: skip
"""Parameters that a wire does not support, of cases that it supports."""
BOTH_QUERIED: Final = (
    "the venue acknowledges an order with its id only, so both orders are queried; the one that answers ends the wait "
    "for the silent one after a second, and the close is over before anyone trades"
)
QUERIED_DURING_THE_POLL: Final = (
    "the venue acknowledges an order with its id only: its fills are queried during the poll that shows flat, which is "
    "made after the order, and before they are known"
)
ONE_TICK_LATER: Final = (
    "acknowledged with its id only, the order is queried first, and flat falls into the next tick of 0.5 s"
)
NOT_AT: Final[dict[tuple[str, str], str]] = {
    **{
        (venue, case): why
        for venue in ("bybit", "okx", "bitget", "mexc")
        for case, why in {
            "test_c4_a_poll_that_waited_for_a_slow_query_is_not_taken_for_a_current_one": BOTH_QUERIED,
        }.items()
    },
    ("bybit", "test_c4_flat_is_proved_by_a_poll_made_after_the_last_order"): QUERIED_DURING_THE_POLL,
    ("okx", "test_c4_flat_is_proved_by_a_poll_made_after_the_last_order"): QUERIED_DURING_THE_POLL,
    ("mexc", "test_c4_flat_is_proved_by_a_poll_made_after_the_last_order"): QUERIED_DURING_THE_POLL,
    ("bitget", "test_c14_one_silent_venue_delays_no_other"): ONE_TICK_LATER,
}  # fmt: skip
"""Venue and prefix of a case's name → why it does not run there."""
SPOT: Final = frozenset({
    "test_c1_one_wrong_answer_ends_nothing_while_an_order_on_the_position_is_of_unknown_status",
    "test_c9_dust_of_a_holding_is_reported_and_is_no_error",
    "test_c24_of_a_position_without_reduce_only_at_most_the_rest_is_sent",
})  # fmt: skip
"""Cases on a spot account whose parameters do not show it."""
DEFECTS: Final[dict[str, str]] = {}
"""Parameters of cases that fail → the defect. One that passes again fails here until it is removed."""


def exclusion_reason(venue: str, name: str, full_name: str) -> str | None:
    """Why a case does not run at a venue; None if it runs. `full_name`: its name with the venue and its parameters."""
    for (excluded_venue, prefix), why in NOT_AT.items():
        if excluded_venue == venue and name.startswith(prefix):
            return why
    return PARTLY.get(full_name)


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """At every venue; `defer_unless_its_turn` decides which one runs now."""
    metafunc.parametrize("closing_venue_name", list(CLOSING_VENUES), indirect=True)


def defer_unless_its_turn(item: pytest.Function) -> None:
    """Run now at the venue whose turn it is among those that support the case with its parameters; else later."""
    name, venue, mode = item.originalname, item.callspec.params["closing_venue_name"], item.callspec.params.get("mode")
    if name in SPOT:
        mode = "spot"
    supporting = [
        each
        for each, closing_venue in CLOSING_VENUES.items()
        if exclusion_reason(each, name, item.name.replace(f"[{venue}", f"[{each}", 1)) is None
        and (mode not in ALL_MODES or mode in closing_venue.modes)
    ]
    if name in AT_ONE_VENUE or venue != at_its_turn(supporting or CLOSING_VENUES, name):
        item.add_marker(LEFT)


def mark_defect(item: Any, full_name: str) -> None:
    """Mark a case with a known defect as an expected failure."""
    if full_name in DEFECTS:
        item.add_marker(pytest.mark.xfail(reason=DEFECTS[full_name], strict=True))


@pytest.fixture(autouse=True)
def closing_venue_name(request: pytest.FixtureRequest) -> Iterator[None]:
    """Every scene of the case is at this venue."""
    name = request.node.originalname
    if name in AT_ONE_VENUE and request.param != "binanceusdm":
        pytest.skip(f"long: runs at binanceusdm only, here by `python -m tests.wire.faults cases {request.param}`")
    if (why := exclusion_reason(request.param, name, request.node.name)) is not None:
        pytest.skip(why)
    mark_defect(request.node, request.node.name)
    with closing_over(request.param):
        yield


def skipping_unsupported_modes(case: Callable[..., None]) -> Callable[..., None]:
    """The case; it is skipped, with the reason, at a venue that lacks its account mode on loopback."""

    @functools.wraps(case)
    def run_or_skip(**arguments: Any) -> None:
        try:
            case(**arguments)
        except NotOverTheWireError as error:
            pytest.skip(str(error))

    return run_or_skip


def _cases() -> dict[str, Callable[..., None]]:
    found: dict[str, Callable[..., None]] = {}
    for module in MODULES:
        for name, case in vars(importlib.import_module(f"tests.cases.test_{module}")).items():
            if name.startswith("test_"):
                assert name not in found, f"two cases are called {name}"
                found[name] = case
    assert set(found) >= {*NOT_OVER_THE_WIRE, *MANUAL_ONLY, *AT_ONE_VENUE}, "an excluded case does not exist any more"
    return found


globals().update(
    {
        name: skipping_unsupported_modes(case)
        for name, case in _cases().items()
        if name not in {*NOT_OVER_THE_WIRE, *MANUAL_ONLY}
    }
)
