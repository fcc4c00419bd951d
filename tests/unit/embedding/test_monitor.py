"""The monitor as a library: the same run as `ksctl run`, next to the caller, with callbacks and a clean stop."""

from __future__ import annotations

import asyncio
import json
import re
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

import killswitch
from killswitch.model.decision import Notice
from killswitch.store.sqlite import open_store
from tests.runner_world import ScriptedVenue, book
from tests.unit.embedding.embedded import POLICY, policies, until


@pytest.fixture
def store(tmp_path: Path) -> Path:
    return tmp_path / "ks.sqlite"


def test_a_stage_is_fired_on_its_own_thread_and_the_caller_is_called_back(tmp_path: Path, store: Path) -> None:
    """From 1,100 to 900 the stage fires; the change names stage and decision, and the caller's thread went on."""
    venue, changes, threads = ScriptedVenue(book("1100")), list[killswitch.StageChange](), set[str]()

    def on_stage(change: killswitch.StageChange) -> None:
        threads.add(threading.current_thread().name)
        changes.append(change)

    with killswitch.start(policies(tmp_path), venue, store=store, interval=0.05, on_stage=on_stage) as monitor:
        assert monitor.ticks >= 0
        assert monitor.is_alive
        venue.answer = book("900")
        until(lambda: bool(changes), "called back")
    assert not monitor.is_alive
    assert monitor.problems == ()
    (change,) = changes
    assert (change.policy, change.scope, change.level_before, change.level) == ("crash", "account/main", 0, 3)
    assert threads == {"killswitch-callbacks"}
    with_decision = open_store(str(store), read_only=True)
    assert [each.decision.id for each in with_decision.decisions(9)] == [change.decision]
    with_decision.close()
    assert venue.closed


def test_a_stop_releases_the_lease_and_the_next_monitor_goes_on(tmp_path: Path, store: Path) -> None:
    """The latch of the first is what the second calls back at its first tick; stopping twice does nothing more."""
    folder, venue, changes = policies(tmp_path), ScriptedVenue(book("1100")), list[killswitch.StageChange]()
    first = killswitch.start(folder, venue, store=store, interval=0.05, on_stage=changes.append)
    venue.answer = book("900")
    until(lambda: bool(changes), "fired")
    end = first.stop()
    assert end is not None and end.cause == "stop"
    assert first.stop() == end
    again = list[killswitch.StageChange]()
    with killswitch.start(folder, ScriptedVenue(book("900")), store=store, interval=0.05, on_stage=again.append):
        until(lambda: bool(again), "called back")
    assert (again[0].stage, again[0].decision) == ("stop", changes[0].decision)


def test_a_second_monitor_on_the_store_is_refused_with_its_cause(tmp_path: Path, store: Path) -> None:
    """Both would hold the lease of the process, and act."""
    folder = policies(tmp_path)
    with (
        killswitch.start(folder, ScriptedVenue(book("1100")), store=store, interval=0.05) as monitor,
        pytest.raises(killswitch.MonitorError) as refused,
    ):
        killswitch.start(folder, ScriptedVenue(book("1100")), store=store, interval=0.05)
    assert "monitors" in str(refused.value)
    assert monitor.problems == ()


def test_a_run_of_another_process_is_refused_with_its_cause(tmp_path: Path, store: Path) -> None:
    """By the lease, as `ksctl run` is."""
    before = open_store(str(store), read_only=False)
    before.acquire("elsewhere:1", int(time.time() * 1e6), 60_000_000)
    before.close()
    with pytest.raises(killswitch.MonitorError) as refused:
        killswitch.start(policies(tmp_path), ScriptedVenue(book("1100")), store=store)
    assert type(refused.value.__cause__).__name__ == "LeaseRefusedError"


@pytest.mark.parametrize(
    ("text", "why"),
    [("kind: Policy\n", "PolicyProblemsError"), (POLICY.partition("---")[2], "NoAccountsError")],
)
def test_what_cannot_start_raises_and_leaves_no_thread(tmp_path: Path, store: Path, text: str, why: str) -> None:
    """Mistakes in the policies, and no account."""
    before = threading.active_count()
    with pytest.raises(killswitch.MonitorError) as refused:
        killswitch.start(policies(tmp_path, text), None, store=store)
    assert type(refused.value.__cause__).__name__ == why
    until(lambda: threading.active_count() <= before, "without its threads")


def test_an_adapter_of_an_unknown_account_is_refused(tmp_path: Path, store: Path) -> None:
    """A misspelled name would leave the account to the adapter of its document."""
    with pytest.raises(killswitch.MonitorError, match="there is no Account mian"):
        killswitch.start(policies(tmp_path), {"mian": ScriptedVenue(book("1100"))}, store=store)


def modes(folder: Path) -> list[object]:
    """The modes of the lock files in a folder."""
    return [json.loads(each.read_text(encoding="utf-8")).get("mode") for each in folder.glob("*.json")]


def test_an_armed_account_writes_its_lock(tmp_path: Path, store: Path) -> None:
    """With `live` the lock file says reduce_only once the stage has fired, in the folder of `ksctl run`."""
    venue, changes = ScriptedVenue(book("1100")), list[killswitch.StageChange]()
    with killswitch.start(
        policies(tmp_path), venue, store=store, live=True, interval=0.05, on_stage=changes.append
    ):  # fmt: skip
        venue.answer = book("900")
        until(lambda: bool(changes), "fired")
        folder = store.with_name("ks.sqlite.locks")
        until(lambda: "reduce_only" in modes(folder), "locked")


def test_from_asyncio_callbacks_are_called_in_the_loop_of_the_caller(tmp_path: Path, store: Path) -> None:
    """A coroutine callback is awaited there; the ticks are on another thread, and go on while the loop is blocked."""
    venue, seen, called = ScriptedVenue(book("1100")), list[tuple[int, str]](), asyncio.Event()

    async def on_stage(change: killswitch.StageChange) -> None:
        await asyncio.sleep(0)
        seen.append((threading.get_ident(), str(change.stage)))
        called.set()

    async def main() -> int:
        async with await killswitch.start_async(
            policies(tmp_path), venue, store=store, interval=0.05, on_stage=on_stage
        ) as monitor:
            before = monitor.ticks
            until(lambda: monitor.ticks > before + 2, "ticking while this loop is blocked")
            venue.answer = book("900")
            await asyncio.wait_for(called.wait(), 60.0)
        return threading.get_ident()

    assert asyncio.run(main()) == seen[0][0]
    assert seen[0][1] == "stop"


def test_notices_are_passed_on_as_they_are_recorded(tmp_path: Path, store: Path) -> None:
    """An account that does not answer is paged."""
    notices = list[Notice]()
    venue = ScriptedVenue(book("1100"))
    with killswitch.start(policies(tmp_path), venue, store=store, interval=0.05, on_notice=notices.append) as monitor:
        venue.answer = OSError("no route")
        until(lambda: monitor.ticks > 30, "ticking")
        monitor.stop()
    recorded = open_store(str(store), read_only=True)
    assert notices == list(recorded.notices(99))[::-1]
    recorded.close()


def test_importing_the_package_imports_nothing(tmp_path: Path) -> None:
    """The names are looked up when they are used; a misspelled one is an AttributeError."""
    code = (
        "import sys; before = set(sys.modules); import killswitch; new = set(sys.modules) - before;"
        "print(sorted(each for each in new if each.partition('.')[0] not in ('killswitch', 'importlib', 'typing')));"
        "print(sorted(each for each in new if each.startswith('killswitch.'))); print(hasattr(killswitch, 'strat'))"
    )
    program = f"import sys, typing, importlib; sys.path[:0] = {sys.path!r}; {code}"
    done = subprocess.run([sys.executable, "-S", "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines() == ["[]", "[]", "False"]


def test_the_code_of_the_page_runs_as_it_is_written(
    tmp_path: Path, repository: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """docs/embedding.md: with an adapter of the account, and strategies that wait until the stage has fired."""
    page = (repository / "docs" / "embedding.md").read_text(encoding="utf-8")
    policies(tmp_path, POLICY)
    monkeypatch.chdir(tmp_path)
    blocking, awaited = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    venue = ScriptedVenue(book("1100"))
    names: dict[str, object] = {"adapter": venue, "__name__": "page"}

    def trade() -> None:
        venue.answer = book("900")
        until(lambda: "level 0 -> 3 (stop)" in capsys.readouterr().out, "printed")

    async def strategy() -> None:
        await asyncio.sleep(0)

    exec(blocking, names | {"trade": trade})  # the page's own code
    names |= {
        "adapter": ScriptedVenue(book("900")),
        "strategy": strategy,
        "stage_changed": print,
        "killswitch": killswitch,
    }
    exec(awaited, names)  # the page's own code
    asyncio.run(names["main"]())  # type: ignore[operator]  # a coroutine function of the page
