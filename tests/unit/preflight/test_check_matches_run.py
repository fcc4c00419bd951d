"""`venues check` and `run --live` agree: what the run refuses or omits, the check reports before, in the same text."""

from __future__ import annotations

from decimal import Decimal

import pytest
from msgspec.structs import replace

from killswitch.accounts.opening import open_accounts
from killswitch.accounts.plug_ins import AdapterError
from killswitch.model.snapshot import Order
from killswitch.model.venue import DeadManRule, VenueDescription
from killswitch.policy.loader import load
from killswitch.policy.schema.account import AccountDocument
from tests.runner_world import book
from tests.unit.preflight.test_venue_verbs import SOUND, Desk, Inspected, desk, findings, policy, wide

__all__ = ["desk", "policy", "wide"]

SWITCH = """---
apiVersion: killswitch.dev/v1
kind: DeadMansSwitch
metadata: {name: watch}
spec: {accounts: [main], at_venue: true, timeout: 60s, refresh: 20s%s}
"""
STOP = Order("s1", "BTC", "sell", Decimal(10), trigger_price=Decimal(90), reduce_only=True)
TIMED = VenueDescription(dead_man=DeadManRule("account", 1.0, 3600.0, takes_stops=None))


def add_duplicate(desk: Desk, monkeypatch: pytest.MonkeyPatch, value: str, **spec: object) -> None:
    """A second document, with another reference to a key."""
    monkeypatch.setenv("ANOTHER_NAME", value)
    second = Inspected(book("1100", "second", position_mode="one_way"), account="second")
    desk.add(second, credentials={"apiKey": "env:ANOTHER_NAME"}, **spec)


def test_two_armed_documents_of_one_key_fail_with_the_text_of_the_run(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The references differ, so that no compiler sees it; the run compares the key, and so does the check."""
    desk.add(Inspected(SOUND))
    add_duplicate(desk, monkeypatch, "KEY-PLANTED")
    checked = desk.check()
    assert checked.return_value == 1
    with pytest.raises(AdapterError) as refused:
        loaded = load([desk.folder])
        open_accounts([it.model for it in loaded.documents if isinstance(it.model, AccountDocument)], live=True)
    assert checked.stdout.count(f"failed   account: `run --live` would not start: {refused.value}") == 2
    assert "one book is polled, counted and closed more than once" not in checked.stdout
    assert "KEY-PLANTED" not in checked.stdout


def test_another_currency_is_another_account_for_run_and_check_where_the_venue_separates_them(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither does the run refuse the two of them, nor the check warn of them; each has a wallet of its own."""

    class Apart:
        def keeps_apart(self, exchange: str | None) -> bool:
            return True

    monkeypatch.setattr("killswitch.accounts.validation.plug_ins_of", lambda adapters: dict.fromkeys(adapters, Apart()))
    desk.add(Inspected(SOUND))
    add_duplicate(desk, monkeypatch, "KEY-PLANTED", currency="USDC")
    assert findings(desk.checked("main"), "failed", "warning") == []
    key = {"apiKey": "env:SCRIPTED_KEY"}
    third = Inspected(book("1100", "third", position_mode="one_way"), account="third")
    desk.add(third, credentials=key, currency="USDC", execution="observe")
    assert findings(desk.checked("main"), "failed", "warning") == []


def test_a_check_of_one_of_them_reports_it_too(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    """The other one is not queried."""
    desk.add(Inspected(SOUND))
    add_duplicate(desk, monkeypatch, "KEY-PLANTED")
    (failed,) = findings(desk.checked("second"), "failed")
    assert "accounts main and second are one account of one venue" in failed


@pytest.mark.parametrize("value", ["ANOTHER-KEY", ""])
def test_another_key_and_a_missing_key_are_no_duplicate(
    desk: Desk, monkeypatch: pytest.MonkeyPatch, value: str
) -> None:
    """A missing key is reported as such, for its own account."""
    desk.add(Inspected(SOUND))
    add_duplicate(desk, monkeypatch, value)
    assert findings(desk.checked("main"), "failed", "warning") == []


@pytest.mark.parametrize(
    ("more", "execution", "orders", "warned"),
    [
        ("", "live", (STOP,), True),
        ("", "live", (), False),
        (", accept_unprotected: true", "live", (STOP,), False),
        ("", "observe", (STOP,), False),
    ],
    ids=["a stop rests", "none rests", "accepted", "observed only"],
)
def test_a_timer_blocked_by_a_resting_stop_is_a_warning_with_the_text_of_the_run(
    desk: Desk, more: str, execution: str, orders: tuple[Order, ...], *, warned: bool
) -> None:
    """The text is that of the page and of Problems in `ksctl status`; the stop may be gone before the run."""
    desk.add(Inspected(replace(SOUND, orders=orders), traits=TIMED), execution=execution)
    desk._documents.append(SWITCH % more)
    text = (
        "dead man: the dead-man timer of account main does not run: it may cancel the protective orders of BTC and "
        "leave the position unprotected; `accept_unprotected: true` would accept that"
    )
    assert [each for each in findings(desk.checked(), "warning") if "dead man" in each] == [text] * warned
