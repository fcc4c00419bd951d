"""One rule for every bot: the gate or the lock file decides, no error is a consent, and no lock ends in a burst."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from killswitch.integrations import OrderPermits
from killswitch.integrations.permission import is_refusal, new_client_order_id, permits_of
from tests.unit.integrations.asked_gate import ENTRY, EXIT, AskedGate, lock_at


class Clock:
    """Seconds that a test moves."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def test_what_a_bot_imports_needs_the_standard_library_only(repository: Path) -> None:
    """`pip install --no-deps` suffices, and freqtrade's licence reaches nobody who imports this."""
    modules = sorted(path.stem for path in (repository / "killswitch/integrations").glob("[!_]*.py"))
    assert len(modules) >= 3
    wanted = ", ".join(f"killswitch.integrations.{name}" for name in modules)
    code = (
        f"import sys; import {wanted}; "
        "print(sorted(name for name in sys.modules if name.partition('.')[0] not in sys.stdlib_module_names "
        "and not name.startswith(('killswitch.client', 'killswitch.integrations', '_', 'encodings'))))"
    )
    found = subprocess.run([sys.executable, "-S", "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "['killswitch']"


@pytest.mark.parametrize(
    ("mode", "entry", "leaving"), [("open", True, True), ("reduce_only", False, True), ("all", False, False)]
)
def test_the_lock_file_alone_decides_by_what_the_order_says_of_itself(
    tmp_path: Path, mode: str, entry: bool, leaving: bool
) -> None:
    """A list is an exit if all of it is."""
    permits = OrderPermits(lock_file=lock_at(tmp_path / "lock.json", mode), pause_after_lock=0)
    assert permits.ask(ENTRY).may_send is entry
    assert permits.ask(EXIT).may_send is leaving
    assert permits.ask(EXIT, ENTRY).may_send is entry
    assert (permits.held_back("BTC/USDT:USDT", "buy") is None) is entry


@pytest.mark.parametrize("content", [None, "", "{}", '{"locked": false, "alive_until": 1}'])
def test_a_lock_file_that_is_missing_broken_or_stale_lets_exits_pass_only(tmp_path: Path, content: str | None) -> None:
    """Nobody has opened trading."""
    path = tmp_path / "lock.json"
    if content is not None:
        path.write_text(content)
    permits = OrderPermits(lock_file=str(path))
    assert (permits.ask(ENTRY).may_send, permits.ask(EXIT).may_send) == (False, True)


def test_a_lock_between_question_and_sending_holds(tmp_path: Path) -> None:
    """And nothing is reported as sent; an exit that the gate has proved goes."""
    path = lock_at(tmp_path / "lock.json")
    gate = AskedGate("allowed", lock_file=path)
    permits = OrderPermits("main", gate=gate, lock_file=path)
    entry = permits.ask(ENTRY)
    gate.verdicts = ["exit"]
    plain = permits.ask({**EXIT, "reduce_only": False})
    assert permits.may_still_send(entry)
    lock_at(tmp_path / "lock.json", "reduce_only")
    assert not permits.may_still_send(entry)
    assert gate.reported == ["not_sent"]
    assert permits.may_still_send(plain)
    lock_at(tmp_path / "lock.json", "all")
    assert not permits.may_still_send(plain)


def test_a_permission_that_is_too_old_is_none() -> None:
    """The gate counts the order for `valid_for` only, so that it must be asked again."""
    gate = AskedGate("allowed")
    gate.seconds = -1.0
    permits = OrderPermits("main", gate=gate)
    assert not permits.may_still_send(permits.ask(ENTRY))
    assert gate.reported == ["not_sent"]


def test_a_defect_in_the_class_is_no_consent(tmp_path: Path) -> None:
    """What opens is not sent, what says that it reduces is, and nothing is under a lock of everything."""
    permits = OrderPermits("main", gate=AskedGate("broken"), lock_file=lock_at(tmp_path / "lock.json"))
    assert (permits.ask(ENTRY).may_send, permits.ask(ENTRY).reason) == (False, "error")
    assert permits.ask(EXIT).may_send
    assert permits.held_back("BTC/USDT:USDT", "buy") is not None, "an open lock file knows of no pause"
    gone: Any = None
    assert not permits.ask(gone).may_send, "an order that is none"
    lock_at(tmp_path / "lock.json", "all")
    assert not permits.ask(EXIT).may_send


def test_resting_entries_are_held_back_by_what_holds_entries_back_and_by_no_limit() -> None:
    """A limit was compared when the order was sent; the order that finds out reserves nothing."""
    gate = AskedGate("order_size")
    permits = OrderPermits("main", gate=gate)
    assert permits.held_back("BTC/USDT:USDT", "buy") is None
    for reason in ("locked", "paused", "sentinel", "maintenance", "side_locked", "symbol_locked", "no_verdict"):
        gate.verdicts = [reason]
        assert permits.held_back("BTC/USDT:USDT", "buy") is not None, reason
    gate.verdicts = ["allowed"]
    assert permits.held_back("BTC/USDT:USDT", "buy") is None
    assert gate.reported == ["not_sent"]


def test_after_a_lock_entries_come_back_one_at_a_time(tmp_path: Path) -> None:
    """Ten that were refused ask on: one is sent at once, then one each 10 s; exits never wait."""
    clock = Clock()
    path = tmp_path / "lock.json"
    permits = OrderPermits(lock_file=lock_at(path, "reduce_only"), clock=clock)
    assert not any(permits.ask(ENTRY).may_send for _ in range(10))
    lock_at(path)
    assert [permits.ask(ENTRY).may_send for _ in range(10)] == [True] + [False] * 9
    assert permits.ask(EXIT).may_send
    assert permits.ask(ENTRY).reason == "way_back"
    sent = 0
    for _ in range(100):
        clock.now += 1.0
        sent += permits.ask(ENTRY).may_send
    assert sent == 10
    clock.now += 700.0
    assert all(permits.ask(ENTRY).may_send for _ in range(10)), "the way back is over"


def test_an_entry_that_comes_too_soon_is_reported_as_not_sent() -> None:
    """The gate has allowed and reserved it."""
    gate = AskedGate("locked", "allowed")
    permits = OrderPermits("main", gate=gate, clock=Clock())
    permits.ask(ENTRY)
    assert permits.ask(ENTRY).may_send
    assert not permits.ask(ENTRY).may_send
    assert gate.reported == ["not_sent"]


def test_entries_that_were_never_held_back_are_not_spaced(tmp_path: Path) -> None:
    """A limit that denies is no lock."""
    gate = AskedGate("order_size", "allowed")
    permits = OrderPermits("main", gate=gate, clock=Clock())
    assert [permits.ask(ENTRY).may_send for _ in range(4)] == [False, True, True, True]


@pytest.mark.parametrize(
    "settings", [{}, {"account": "main"}, {"gate": "http://127.0.0.1:9"}, {"lock_files": "x"}, "main", {"gate": "x"}]
)
def test_settings_by_which_nothing_could_be_known_are_an_error_at_the_start(settings: Any) -> None:
    """Not at the first order; a misspelt key is no key."""
    with pytest.raises(ValueError, match=r"gate|killswitch|lock file"):
        permits_of(settings if "gate" not in settings or "x" not in settings.values() else {**settings, "account": "a"})


def test_a_readable_refusal_of_the_venue_is_no_lost_request() -> None:
    """Also where a bot has wrapped it; whatever is not known to be a refusal is none."""
    import ccxt

    refusals = [ccxt.InvalidOrder("x"), ccxt.InsufficientFunds("x"), ccxt.BadSymbol("x"), ccxt.PermissionDenied("x")]
    others = [
        ccxt.RequestTimeout("x"), ccxt.ExchangeNotAvailable("x"), ccxt.ExchangeError("x"), ccxt.DuplicateOrderId("x"),
        ccxt.DDoSProtection("x"), ccxt.BadResponse("x"), ValueError("x"), TimeoutError(),
    ]  # fmt: skip
    assert all(map(is_refusal, refusals))
    assert not any(map(is_refusal, others))
    wrapped = RuntimeError("wrapped")
    wrapped.__cause__ = refusals[0]
    assert is_refusal(wrapped)


def test_client_order_ids_differ_and_fit_most_venues() -> None:
    """At most 32 letters and digits."""
    made = {new_client_order_id() for _ in range(1000)}
    assert len(made) == 1000
    assert all(len(each) == 32 and each.isalnum() and each.islower() for each in made)


@pytest.mark.parametrize("is_asked", [False, True])
def test_while_the_sentinel_is_there_exits_are_sent_only(tmp_path: Path, is_asked: bool) -> None:
    """With a gate that has not seen it, and by the lock file alone; at the question and before sending."""
    halt, lock = tmp_path / "ks.sqlite.halt", lock_at(tmp_path / "lock.json")
    gate = AskedGate("allowed") if is_asked else None
    permits = OrderPermits("main", gate=gate, lock_file=lock, sentinel=str(halt), pause_after_lock=0)
    entry, leaving = permits.ask(ENTRY), permits.ask(EXIT)
    assert permits.may_still_send(entry)
    halt.mkdir()
    assert not permits.may_still_send(entry)
    assert permits.may_still_send(leaving)
    assert (permits.ask(ENTRY).may_send, permits.ask(ENTRY).reason) == (False, "sentinel")
    assert permits.ask(EXIT).may_send
    assert "ks.sqlite.halt" in (permits.held_back("BTC/USDT:USDT", "buy") or "")
    if gate is not None:
        assert gate.reported == ["not_sent"] * 3, "what the gate had reserved is given back"
        gate.verdicts = ["exit"]
        assert permits.ask({**EXIT, "reduce_only": False}).may_send, "an exit that the gate has proved"
    halt.rmdir()
    assert permits.ask(ENTRY).may_send or is_asked


def test_the_sentinel_is_a_key_of_a_bots_configuration(tmp_path: Path) -> None:
    """As the lock file is."""
    (tmp_path / "halt").touch()
    lock = lock_at(tmp_path / "lock.json")
    assert not permits_of({"lock_file": lock, "sentinel": str(tmp_path / "halt")}).ask(ENTRY).may_send
