"""What a command would do now: the tick that it would cause, on what the last tick has read, carried out nowhere.

The same interpreter decides as in the run, with the same history and the same stages. The server has no credentials and
asks no venue: positions and prices are those of the last tick, and the answer has their time.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

import anyio
from fastapi import HTTPException
from msgspec import MsgspecError
from pydantic import BaseModel

from killswitch.accounts.next_set import stored_start
from killswitch.accounts.opening import LoadedPolicies, PolicyProblemsError, read_policies
from killswitch.limits.view import decode_gate_view
from killswitch.model.flags import OF_POLICY
from killswitch.model.snapshot import Event, Snapshot
from killswitch.operations.lifting import ScopeHold, after_resets, holds_of
from killswitch.operations.notifying import Acknowledgeable, UnknownPageError, acknowledgeable
from killswitch.operations.pages.decision import decided
from killswitch.operations.pages.wording import headline
from killswitch.operations.preview import Preview, closes_under_way, from_store, preview
from killswitch.operations.scoped_board import accounts_seen
from killswitch.planning.notices import GIVE_UP_HINT
from killswitch.render.document import Items, Page, section, text
from killswitch.render.formats import count_of, instant
from killswitch.runner.clock import SystemClock
from killswitch.runner.locks.gate_view import gate_view_file
from killswitch.runner.status_blob import RunnerView, last_view, tick_time
from killswitch.server.access import EffectClass, class_of
from killswitch.server.bodies import CommandBody
from killswitch.store.errors import StoreError
from killswitch.store.sqlite import open_store

WITHIN: Final = 20.0
"""Seconds that a preview may take: the first one of a policy set compiles it."""
CLOCK: Final = SystemClock()


class CommandPreview(BaseModel):
    """What a command would do. `confirm`: what whoever gives it types, to show that it was read."""

    summary: list[str]
    text: str
    confirm: str
    effect: EffectClass
    as_of: str
    warnings: list[str]
    ids: list[str] | None = None
    """What it ends, which the command then names."""


class CommandPreviews:
    """Previews commands for one store, one at a time."""

    def __init__(self, store: Path) -> None:
        self._store = store
        self._limiter = anyio.CapacityLimiter(1)
        self._compiled: tuple[str, LoadedPolicies] | None = None

    async def holds(self, command: CommandBody) -> tuple[ScopeHold, ...]:
        """What a command that ends something ends where it names nothing: all that its verb is for."""
        verb, scope = command.kind, command.scope or "portfolio"
        if verb not in ("unlock", "reset", "resume") or scope.startswith(OF_POLICY):
            return ()

        def read() -> tuple[ScopeHold, ...]:
            store = open_store(str(self._store), read_only=True)
            try:
                found = holds_of(store, last_view(store), scope, tick_time(store, CLOCK))
            finally:
                store.close()
            return tuple(
                it
                for it in found
                if verb == "reset" or (it.kind == "pause" if verb == "resume" else it.kind != "stage")
            )

        try:
            with anyio.fail_after(WITHIN):
                return await anyio.to_thread.run_sync(read, limiter=self._limiter, abandon_on_cancel=True)
        except (TimeoutError, StoreError, MsgspecError) as error:
            raise HTTPException(503, f"no preview: {error or 'the store does not answer'}") from error

    async def preview(
        self, event: Event, may_see: Callable[[str], bool], holds: tuple[ScopeHold, ...] = ()
    ) -> CommandPreview:
        """What the event would do. HTTPException where that cannot be shown, with the reason.

        `may_see`: whether the caller sees the positions of a scope; nothing of any other scope is in the answer.
        """
        ends = [f"ends {each.line}" for each in holds if each.decision in (event.ids or ())]
        try:
            with anyio.fail_after(WITHIN):
                found = await anyio.to_thread.run_sync(
                    self._preview, event, may_see, limiter=self._limiter, abandon_on_cancel=True
                )
                ids = None if event.ids is None else list(event.ids)
                return found.model_copy(update={"summary": [*ends, *found.summary], "ids": ids})
        except TimeoutError as error:
            raise HTTPException(503, f"the preview takes longer than {WITHIN:.0f} s") from error
        except UnknownPageError as error:
            raise HTTPException(409, str(error)) from error
        except PolicyProblemsError as error:
            raise HTTPException(
                503, "no preview: the policy files do not compile, and the run goes on with its set"
            ) from error
        except FileNotFoundError as error:
            raise HTTPException(
                503, f"no preview: {error.filename} is missing; has a run ticked on this store?"
            ) from error
        except (StoreError, OSError, MsgspecError, ValueError) as error:
            raise HTTPException(503, f"no preview: {error}") from error

    def _preview(self, event: Event, may_see: Callable[[str], bool]) -> CommandPreview:
        store = open_store(str(self._store), read_only=True)
        try:
            if event.kind == "acknowledge":
                return _acknowledgement(event, acknowledgeable(store, event.decision or ""))
            view = last_view(store)
            if view is None:
                raise HTTPException(409, "no preview: no run has ticked on this store")
            loaded = self._policies(view)
            gate = decode_gate_view(gate_view_file(str(self._store)).read_bytes())
            interpreter, memory = from_store(loaded.policies, store)
            snapshot = Snapshot(
                tick_time(store, CLOCK), tuple(each.state for each in gate.accounts), "killswitch.snapshot/v1",
                events=(event,), closings=closes_under_way(store), locks=gate.locks,
            )  # fmt: skip
            armed = frozenset(each.account for each in view.accounts if each.armed)
            shown = preview(loaded.policies, snapshot, interpreter, memory, armed, with_levels=False)
        finally:
            store.close()
        warnings = tuple(_warnings(view, loaded, may_see))
        return command_preview(event, shown, may_see, gate.as_of, warnings)

    def _policies(self, view: RunnerView) -> LoadedPolicies:
        """The set in force: of the store, else of the files of the run."""
        if self._compiled is not None and self._compiled[0] == view.policy_set:
            return self._compiled[1]
        if view.policies:
            loaded = read_policies([Path(each) for each in view.policies])
        else:
            store = open_store(str(self._store), read_only=True)
            try:
                stored = stored_start(store)
            finally:
                store.close()
            if stored is None:
                raise HTTPException(503, "no preview: the policies of the run are neither in files nor in the store")
            loaded = stored.loaded
        self._compiled = (view.policy_set, loaded)
        return loaded


def _acknowledgement(event: Event, found: Acknowledgeable) -> CommandPreview:
    covered = [page for page in found.pages if page.number <= (event.number or found.number)]
    return CommandPreview(
        summary=[f"acknowledges {count_of(len(covered), 'firing')}: their escalation ends"],
        text="",
        confirm=(event.decision or "")[:8],
        effect=class_of(event),
        as_of=instant(event.at),
        warnings=["nothing else changes: stages stay latched, closes go on, and a later firing escalates"],
    )


def _warnings(view: RunnerView, loaded: LoadedPolicies, may_see: Callable[[str], bool]) -> Iterator[str]:
    if loaded.policies.digest != view.policy_set:
        yield "the policy files differ from the set in force: this is what the files would do"
    seen = accounts_seen(view.accounts, may_see)
    accounts = [each for each in view.accounts if each.account in seen]
    observed = [each.account for each in accounts if not each.armed]
    if observed:
        yield f"nothing is sent to {', '.join(observed)}: observed only"
    unread = [f"{each.account} is {each.quality}" for each in accounts if each.quality != "ok"]
    if unread:
        yield f"{', '.join(unread)}: what is there is not known"


def command_preview(
    event: Event, shown: Preview, may_see: Callable[[str], bool], as_of: datetime, warnings: tuple[str, ...] = ()
) -> CommandPreview:
    """What the event decides, and what else the tick would decide in the scopes that the caller sees."""
    own = [each for each in shown.decisions if each.author == event.author and may_see(each.scope)]
    others = [headline(each) for each in shown.decisions if each.author != event.author and may_see(each.scope)]
    notices = [each.text.removesuffix(GIVE_UP_HINT.format(id=event.id)) for each in shown.notices
               if (each.policy == "operator" and may_see(each.scope)) or each.subject == event.id]  # fmt: skip
    page = Page(
        "What it would do",
        sections=(
            *(decided(each, shown.snapshot) for each in own),
            *section("The same tick would also decide", Items(tuple(others))),
        ),
    )
    summary = [*map(headline, own), *after_resets(own, shown.policies), *notices] or [
        "nothing that this tick would decide or report"
    ]
    return CommandPreview(
        summary=summary,
        text=text(page),
        confirm=event.scope or "portfolio",
        effect=class_of(event),
        as_of=instant(as_of.astimezone(UTC)),
        warnings=list(warnings),
    )
