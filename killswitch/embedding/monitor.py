"""A run inside another program, such as a bot: the same store, lease, locks and journal as `ksctl run`.

It has a thread and an event loop of its own. It installs no signal handler, prints nothing, and changes nothing of the
process around it. A watcher inside the watched process shares its interpreter lock and its death (docs/embedding.md).
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from types import TracebackType
from typing import Final

from msgspec import Struct

from killswitch.accounts.arming import ArmedAccount
from killswitch.accounts.opening import LoadedPolicies, open_accounts, read_policies, require_encrypted
from killswitch.embedding.callbacks import Callbacks, OnNotice, OnStage
from killswitch.embedding.run_parts import (
    connect_gate_view,
    connect_server,
    following_inputs,
    open_gate_view,
    open_intake,
    path_of_store,
    taking_commands,
)
from killswitch.execution.effects.performing import RunEnd
from killswitch.gate.sentinel import SentinelWatch, sentinel_of
from killswitch.incident.record.checklist import incidents_folder
from killswitch.model.venue import VenueAdapter
from killswitch.preflight.key_rights import require_harmless_keys
from killswitch.preflight.run_start import claimed, lock_paths, require_locks
from killswitch.runner import process
from killswitch.runner.assembly import LockPaths, assemble
from killswitch.runner.claims import ClaimHolder, RunClaims
from killswitch.runner.clock import SystemClock
from killswitch.runner.expectation_check import ExpectationCheck
from killswitch.runner.lease import this_process
from killswitch.runner.loop import Runner, RunnerPace
from killswitch.runner.notify.reports import ReportRenderer
from killswitch.runner.notify.target_check import target_warnings
from killswitch.runner.status_blob import keep_start
from killswitch.store.sqlite import open_store

STOP_TIMEOUT: Final = 30.0
"""Seconds that a stop waits: requests under way end by their own time-outs, and the locks are settled."""

_MONITORED: Final[set[Path]] = set()
"""The stores of this process's monitors: a lease is of a process, and would be renewed by a second one."""
_MONITORED_LOCK: Final = threading.Lock()

Adapters = VenueAdapter | Mapping[str, VenueAdapter] | None
"""The adapter of the only account, or of each account by name; None: those that the Account documents name."""


class MonitorError(Exception):
    """The monitor could not start, or has ended with an error; the cause has the details."""


@contextmanager
def _only_monitor(store: Path) -> Iterator[None]:
    """The store is this monitor's until the end of the block. MonitorError if another one of this process has it."""
    with _MONITORED_LOCK:
        if store in _MONITORED:
            raise MonitorError(f"this process monitors {store} already: stop that monitor first, or name another store")
        _MONITORED.add(store)
    try:
        yield
    finally:
        with _MONITORED_LOCK:
            _MONITORED.discard(store)


class MonitorOptions(Struct, frozen=True, kw_only=True):
    """How a monitor runs. Times are in seconds.

    `store`: the file of the store. `live`: act on accounts whose document says `execution: live`; else observe.
    `unnotified`: with `live`, start even if a recipient cannot be notified. `another_runner`: with `live`, start even
    if another run with another store acts on an account.
    """

    store: str | Path
    live: bool = False
    unnotified: bool = False
    another_runner: bool = False
    interval: float = 1.0
    read_timeout: float = 5.0
    lock_dir: Path | None = None
    lock_file: Path | None = None


class Monitor:
    """A run on a thread of its own. `start` it once; `stop` ends it cleanly, as does the end of a `with` block."""

    def __init__(
        self, policies: Sequence[Path], adapters: Adapters, options: MonitorOptions, callbacks: Callbacks
    ) -> None:
        self._policies = policies
        self._adapters = adapters
        self._options = options
        self._callbacks = callbacks
        self._thread = threading.Thread(target=self._run, name="killswitch", daemon=True)
        self._loop: asyncio.AbstractEventLoop | None = None
        self._stop: asyncio.Event | None = None
        self._is_stopping = False
        self._lock = threading.Lock()
        self._has_begun = threading.Event()
        self._runner: Runner | None = None
        self._end: RunEnd | None = None
        self._error: BaseException | None = None
        self.warnings: tuple[str, ...] = ()
        """What the checks before the first tick have found; the first tick notifies it."""

    def begin(self) -> None:
        """Start the thread, and wait until the first tick is complete. MonitorError if it does not come to that."""
        self._callbacks.start()
        self._thread.start()
        self._has_begun.wait()
        if self._error is not None:
            self._callbacks.stop(0.0)
            raise MonitorError(f"the monitor could not start: {self._error}") from self._error

    @property
    def is_alive(self) -> bool:
        """Whether it ticks."""
        return self._thread.is_alive()

    @property
    def ticks(self) -> int:
        """The scheduled ticks so far."""
        return 0 if self._runner is None else self._runner.ticks

    @property
    def dropped(self) -> int:
        """Calls of callbacks that did not fit into the queue."""
        return self._callbacks.dropped

    @property
    def problems(self) -> tuple[str, ...]:
        """What is wrong with the monitor itself: an error that ended it, and what a callback raised last."""
        ended = None if self._error is None else f"the monitor has ended: {type(self._error).__name__}: {self._error}"
        return tuple(each for each in (ended, self._callbacks.problem) if each is not None)

    def stop(self, timeout: float = STOP_TIMEOUT) -> RunEnd | None:
        """Finish the step under way, release the lease, and end; how the run has ended.

        None if it has not ended within `timeout`. MonitorError if it had ended with an error. A second call does
        nothing more. The lock files become stale then, which bots read as locked, until a runner is alive again.
        """
        with self._lock:
            self._is_stopping = True
            if self._loop is not None and self._stop is not None:
                with suppress(RuntimeError):  # the loop has ended by itself
                    self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join(timeout)
        self._callbacks.stop(timeout)
        if self._error is not None:
            raise MonitorError(f"the monitor has ended with an error: {self._error}") from self._error
        return self._end

    def __enter__(self) -> Monitor:
        return self

    def __exit__(
        self, _type: type[BaseException] | None, _error: BaseException | None, _trace: TracebackType | None
    ) -> None:
        self.stop()

    async def stop_async(self, timeout: float = STOP_TIMEOUT) -> RunEnd | None:  # noqa: ASYNC109 - as of `stop`
        """As `stop`, without blocking the event loop of the caller."""
        return await asyncio.to_thread(self.stop, timeout)

    async def __aenter__(self) -> Monitor:
        return self

    async def __aexit__(
        self, _type: type[BaseException] | None, _error: BaseException | None, _trace: TracebackType | None
    ) -> None:
        await self.stop_async()

    def _run(self) -> None:
        """The thread: everything of the run is made, used and closed on it."""
        try:
            self._end = process.run(self._main())
        except BaseException as error:  # noqa: BLE001 - a thread has nobody to raise it to
            self._error = error
        finally:
            with self._lock:
                self._loop = self._stop = None
            self._has_begun.set()

    async def _main(self) -> RunEnd:
        it, store_at = self._options, str(self._options.store)
        holder = ClaimHolder(this_process(), str(path_of_store(store_at).absolute()))
        with ExitStack() as stack:
            stack.enter_context(_only_monitor(path_of_store(store_at).resolve()))
            loaded = read_policies(self._policies)
            locks = lock_paths(store_at, it.lock_dir, it.lock_file)
            accounts, warnings = await self._checked(loaded, locks)
            claims = stack.enter_context(RunClaims(holder))
            of_claims = claimed(claims, loaded, accounts, locks, is_forced=it.another_runner)
            self.warnings = (*warnings, *(text for _, text in of_claims))
            store = open_store(store_at, read_only=False)
            stack.callback(store.close)
            gate_view = stack.enter_context(open_gate_view(store_at, loaded, locks.folder, lambda _: None))
            reports = ReportRenderer(store, store_at, incidents_folder(store_at))
            stack.callback(reports.close)
            intake, sentinel = open_intake(path_of_store(store_at), store), SentinelWatch(sentinel_of(store_at))
            runner = self._runner = assemble(
                loaded.policies, accounts, store, SystemClock(), RunnerPace(it.interval, it.read_timeout),
                live=it.live, locks=locks, store_at=store_at,
                paths=tuple(str(path.resolve()) for path in self._policies),
                observers=(
                    reports, ExpectationCheck(loaded.policies), gate_view, intake, sentinel,
                    self._callbacks, _First(self),
                ),
                timers=True, startup_notices=tuple(("warning", text) for text in self.warnings),
            )  # fmt: skip
            connect_server(intake, runner, path_of_store(store_at))
            connect_gate_view(gate_view, runner, accounts)
            keep_start(store, loaded.policies.digest, loaded.runbooks, None)
            stop = self._stop_of_this_loop()
            async with (
                following_inputs(runner, path_of_store(store_at), intake, sentinel),
                taking_commands(intake, stop),
            ):
                return await runner.run(stop)

    def _stop_of_this_loop(self) -> asyncio.Event:
        """What ends the run, which a stop that came before sets at once."""
        stop = asyncio.Event()
        with self._lock:
            self._loop, self._stop = asyncio.get_running_loop(), stop
            if self._is_stopping:
                stop.set()
        return stop

    async def _checked(
        self, loaded: LoadedPolicies, locks: LockPaths
    ) -> tuple[dict[str, ArmedAccount], tuple[str, ...]]:
        """The accounts, and the warnings of the checks before the first tick. Raises what refuses a start."""
        it, given = self._options, _by_account(self._adapters, loaded)
        gated = {name for rule in loaded.policies.limits for name in rule.accounts}
        accounts = open_accounts(loaded.accounts, live=it.live, gated=gated, adapters=given)
        warnings = list(require_locks(accounts, locks, str(it.store)))
        if not it.live:
            return accounts, tuple(warnings)
        own = [document for document in loaded.accounts if document.metadata.name not in given]
        require_encrypted(own, loaded.places)
        warnings += [text for _, text in await require_harmless_keys(own, loaded.places, it.read_timeout)]
        unreachable = (*loaded.unrouted, *target_warnings(loaded.policies))
        if unreachable and not it.unnotified and any(account.armed for account in accounts.values()):
            first = unreachable[0]
            raise MonitorError(
                f"some recipients cannot be notified: {first.message} ({first.code}). Correct the "
                "NotificationRoutes, or start with unnotified=True"
            )
        return accounts, tuple(warnings)

    def ticked_first(self) -> None:
        """The first tick is complete: whoever waits for the start goes on."""
        self._has_begun.set()


class _First:
    """The last observer: it reports that the first tick is complete."""

    def __init__(self, monitor: Monitor) -> None:
        self._monitor = monitor

    def ticked(self, _report: object) -> None:
        self._monitor.ticked_first()


def _by_account(adapters: Adapters, loaded: LoadedPolicies) -> dict[str, VenueAdapter]:
    """Account → the adapter that was given for it. MonitorError if it is not clear for which account it is."""
    names = [document.metadata.name for document in loaded.accounts]
    if adapters is None:
        return {}
    if isinstance(adapters, Mapping):
        unknown = sorted(adapters.keys() - set(names))
        if unknown:
            raise MonitorError(f"there is no Account {unknown[0]}: name one of {', '.join(names) or 'none'}")
        return dict(adapters)
    if len(names) != 1:
        raise MonitorError(f"one adapter was given for {len(names)} accounts: give a mapping, account → adapter")
    return {names[0]: adapters}


def _paths(policies: str | Path | Sequence[str | Path]) -> tuple[Path, ...]:
    return (Path(policies),) if isinstance(policies, str | Path) else tuple(map(Path, policies))


def start(
    policies: str | Path | Sequence[str | Path],
    adapter: Adapters = None,
    *,
    on_stage: OnStage | None = None,
    on_notice: OnNotice | None = None,
    **options: object,
) -> Monitor:
    """Monitor the accounts of these policies next to the caller, and return once the first tick is complete.

    `policies`: files or folders. `adapter`: see `Adapters`; it is used by the monitor's event loop alone. `on_stage`
    and `on_notice` are called on a thread of their own. `options`: the fields of `MonitorOptions`, of which `store` is
    required. MonitorError if the monitor cannot start; its cause says why.
    """
    monitor = _monitor(policies, adapter, Callbacks(on_stage, on_notice), options)
    monitor.begin()
    return monitor


async def start_async(
    policies: str | Path | Sequence[str | Path],
    adapter: Adapters = None,
    *,
    on_stage: OnStage | None = None,
    on_notice: OnNotice | None = None,
    **options: object,
) -> Monitor:
    """As `start`, from asyncio: callbacks are called in the event loop of the caller, and may be coroutines.

    The monitor keeps its own event loop, so that a strategy that blocks its loop does not stop the ticks.
    """
    callbacks = Callbacks(on_stage, on_notice, asyncio.get_running_loop())
    monitor = _monitor(policies, adapter, callbacks, options)
    await asyncio.to_thread(monitor.begin)
    return monitor


def _monitor(
    policies: str | Path | Sequence[str | Path], adapter: Adapters, callbacks: Callbacks, options: Mapping[str, object]
) -> Monitor:
    return Monitor(_paths(policies), adapter, MonitorOptions(**options), callbacks)  # type: ignore[arg-type]  # TypeError
