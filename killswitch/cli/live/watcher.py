"""The process of `ksctl deadman watch`: a runner without policies, and the checks of the switches next to its ticks."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import click
from msgspec import Struct
from msgspec.structs import replace

from killswitch.cli.console import (
    print_memory_entry,
    run_next_to,
    write_in_background,
)
from killswitch.cli.live.run_console import RunConsole
from killswitch.cli.live.start_checks import StartFailures
from killswitch.cli.terminal import print_note
from killswitch.render.formats import count_of

if TYPE_CHECKING:
    from killswitch.accounts.arming import ArmedAccount
    from killswitch.accounts.opening import LoadedPolicies
    from killswitch.preflight.key_rights import KeyWarning
    from killswitch.runner.assembly import LockPaths


MIN_FREE = 256 << 20
"""Bytes on the disk of the store below which a watcher pages."""


class WatcherSettings(Struct, frozen=True):
    """The options of a watcher."""

    policies_at: tuple[Path, ...]
    store_at: str
    live: bool
    unnotified: bool
    interval: float
    read_timeout: float
    lock_dir: Path | None
    lock_file: Path | None
    ticks: int | None


def run_watcher(settings: WatcherSettings) -> int:
    """Watch until the process is stopped; return the exit code."""
    write_in_background()
    with StartFailures() as failures:
        from killswitch.cli.live.start_checks import checked_accounts
        from killswitch.cli.session import load_policies
        from killswitch.preflight.run_start import lock_paths

        loaded = of_watcher(load_policies(settings.policies_at))
        locks = lock_paths(settings.store_at, settings.lock_dir, settings.lock_file)
        accounts, found = checked_accounts(
            loaded, settings.store_at, locks, settings.read_timeout, live=settings.live,
            unnotified=settings.unnotified, emergency=False,
        )  # fmt: skip
        return _run(settings, loaded, accounts, locks, found, failures)


def of_watcher(loaded: LoadedPolicies) -> LoadedPolicies:
    """What a watcher takes of the policy files: accounts of its switches, the switches and the routes; no policy.

    ClickException if no switch is to be watched.
    """
    silences = loaded.policies.silences
    if not silences:
        raise click.ClickException(
            "no DeadMansSwitch with `at_venue: false` is in these files: there is nobody to listen for"
        )
    names = {name for each in silences for name in each.accounts}
    accounts = tuple(each for each in loaded.accounts if each.metadata.name in names)
    policies = replace(loaded.policies, graphs=(), timers=())
    return replace(loaded, policies=policies, accounts=accounts, unrouted=())


def _run(
    settings: WatcherSettings, loaded: LoadedPolicies, accounts: dict[str, ArmedAccount], locks: LockPaths,
    found: tuple[KeyWarning, ...], failures: StartFailures,
) -> int:  # fmt: skip
    from killswitch.cli.live.run_outputs import open_outputs, open_reports
    from killswitch.cli.session import acting_store
    from killswitch.incident.notify.message import trigger_texts
    from killswitch.preflight.run_start import arming_summary
    from killswitch.runner import process
    from killswitch.runner.assembly import assemble
    from killswitch.runner.clock import SystemClock
    from killswitch.runner.disk_space import DiskSpace
    from killswitch.runner.loop import RunnerPace
    from killswitch.runner.process import switch_threads_often
    from killswitch.runner.status_blob import keep_start
    from killswitch.watcher.watch import DeadManWatch
    from killswitch.watcher.ways import listeners

    clock, it = SystemClock(), settings
    with (
        open_outputs(loaded, it.store_at, None, clock) as outputs,
        acting_store(it.store_at, None, locks) as store,
        open_reports(store, it.store_at, outputs.telemetry.tracer) as reports,
    ):
        space = DiskSpace(store, Path(it.store_at.removeprefix("sqlite:///")).parent, MIN_FREE, clock.monotonic)
        console = RunConsole(store, outputs.incidents, json=False, err=False, thresholds=trigger_texts(loaded.policies))
        listen = partial(listeners, monotonic=clock.monotonic)
        watch = DeadManWatch(loaded.policies.silences, store, clock, listen)
        runner = failures.runner = assemble(
            loaded.policies, accounts, store, clock, RunnerPace(it.interval, it.read_timeout),
            live=it.live, locks=locks, store_at=it.store_at,
            paths=tuple(str(path.resolve()) for path in it.policies_at),
            observers=(console, reports, space, watch, *outputs.observers),
            tracer=outputs.telemetry.tracer, closing_observer=outputs.closing_observer,
            incidents=outputs.incidents, is_run=True, is_watcher=True, startup_notices=found, on_wait=print_note,
            on_acquired=partial(store.allow_memory, print_memory_entry),
        )  # fmt: skip
        watch.on_firing = runner.call_tick
        keep_start(store, loaded.policies.digest, loaded.runbooks, None)
        heard = ", ".join(f"the {each.watches} {each.beats}" for each in loaded.policies.silences)
        print_note(f"listening for {heard}; {arming_summary(accounts, live=it.live)}")
        outputs.closings, outputs.notifications = runner.closings, runner.notifications
        switch_threads_often()
        end = process.run(run_next_to(watch.run(), runner, it.ticks))
        outputs.end_reason = end.reason
    print_note(f"stopped after {count_of(console.ticks, 'tick')}; nobody listens now, and no switch fires")
    for problem in filter(None, (*runner.stop_problems, store.trouble)):
        print_note(problem)
    return end.exit_code
