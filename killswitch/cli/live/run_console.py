"""What `ksctl run` prints at each tick: decisions, notices, accounts without an answer, closes, and what it watches."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import TYPE_CHECKING

import click

from killswitch.cli.console import console_problem
from killswitch.cli.terminal import is_logged, print_note, print_section

if TYPE_CHECKING:
    from killswitch.incident.notify.message import TriggerTexts as Thresholds
    from killswitch.model.alert import Alerts
    from killswitch.model.decision import Decision, Severity
    from killswitch.model.store import Store
    from killswitch.model.tracing import Incidents
    from killswitch.runner.hot_reload import TakenSet
    from killswitch.runner.observers import TickReport
    from killswitch.telemetry.process_log import LogLevel


WATCHING_EVERY = timedelta(minutes=1)
"""Time between two lines on a terminal that say what is watched."""


LEVELS: dict[Severity, LogLevel] = {"info": "info", "warning": "warning", "page": "error"}


class RunConsole:
    """Observer that prints decisions to stdout and everything else to stderr."""

    def __init__(
        self, store: Store, incidents: Incidents, *, json: bool, err: bool = False, thresholds: Thresholds | None = None
    ) -> None:
        """`store`: results of closes. `incidents`: those that lines of a log name. `thresholds`: of the policies.

        `err`: decisions go to stderr too, because stdout is used for something else.
        """
        self._store = store
        self._thresholds = thresholds
        self._json = json
        self._err = err
        self._incidents = incidents
        self._down: dict[str, str] = {}
        self._closing: Mapping[str, str] = {}
        self._has_begun = False
        self._on_terminal = sys.stderr.isatty()
        self._watching_at: datetime | None = None
        self.ticks = 0

    def reload(self, taken: TakenSet) -> None:
        """Print decisions with the thresholds of the next set."""
        from killswitch.incident.notify.message import trigger_texts

        self._thresholds = trigger_texts(taken.loaded.policies)
        for each in taken.proposed.needs_start:
            print_note(f"not taken before the next start: {each}")
        print_note(f"running {taken.in_force.digest}, taken without a restart")

    def ticked(self, report: TickReport) -> None:
        """Print what is new since the previous tick."""
        self._incidents.follow(report.decisions)
        self.ticks += report.snapshot.scheduled  # a tick after a push message does not count
        for print_part in (self._print_decisions, self._print_notices, self._print_accounts, self._print_closes):
            print_part(report)
        if not self._has_begun:
            self._has_begun = True
            self._print_orphans()
        self._print_watching(report)

    @property
    def judges(self) -> tuple[str, ...]:
        return ("console",)

    @property
    def alerts(self) -> Alerts:
        """A page while output is late or lost."""
        from killswitch.model.alert import alert_if

        return alert_if("console", console_problem())

    def _print_decisions(self, report: TickReport) -> None:
        from killswitch.model.decision import encode_decision
        from killswitch.operations.pages.wording import decision_section

        for decision in report.decisions:
            if is_logged():
                self._log_decision(decision, acted=decision.id in report.acting_on)
            if self._json:
                click.echo(encode_decision(decision).decode(), err=self._err)
                continue
            acted = "" if decision.id in report.acting_on else "  (observed only: no order is sent)"
            shown = decision_section(decision, self._thresholds, f"  [{decision.id}]{acted}")
            print_section(shown, err=self._err)

    def _log_decision(self, decision: Decision, *, acted: bool) -> None:
        """One event for a decision; its orders are in the journal, and in the event stream."""
        from killswitch.operations.pages.wording import headline

        level: LogLevel = "warning" if decision.level > decision.previous_level else "info"
        print_note(
            headline(decision), level, at=decision.as_of, kind=decision.kind or "stage", decision=decision.id,
            incident=self._incidents.of(decision), policy=decision.policy, scope=decision.scope, stage=decision.stage,
            stage_level=decision.level, acted=acted, author=decision.author,
        )  # fmt: skip

    def _print_notices(self, report: TickReport) -> None:
        from killswitch.operations.pages.wording import notice_line

        for notice in report.notices:
            print_note(
                notice_line(notice), LEVELS[notice.severity], at=notice.as_of, kind=notice.kind, policy=notice.policy,
                scope=notice.scope, incident=self._incidents.at(notice.policy, notice.scope),
            )  # fmt: skip

    def _print_accounts(self, report: TickReport) -> None:
        for account in report.snapshot.accounts:
            now = report.outage(account)
            if now != self._down.get(account.account, ""):
                level: LogLevel = "warning" if now else "info"
                text = f"account {account.account} is {now or 'ok again'}"
                print_note(text, level, at=report.snapshot.as_of, kind="account", account=account.account)
            self._down[account.account] = now

    def _print_closes(self, report: TickReport) -> None:
        from killswitch.model.snapshot import IN_PROGRESS

        current = {closing.decision: closing.status for closing in report.snapshot.closings}
        for decision, status in current.items():
            # The run that finished a close has printed its result.
            if self._closing.get(decision) != status and (self.ticks > 1 or status in IN_PROGRESS):
                text = status if status in IN_PROGRESS else self._close_result(decision) or status
                print_note(
                    f"closing {decision}: {text}", at=report.snapshot.as_of, kind="close", decision=decision,
                    status=status, incident=self._incidents.of_id(decision),
                )  # fmt: skip
        self._closing = current

    def _print_watching(self, report: TickReport) -> None:
        """On a terminal, print each minute that it watches: without an event, a run prints nothing else."""
        from killswitch.operations.pages.wording import watch_line

        at = report.snapshot.as_of
        if not self._on_terminal or (self._watching_at is not None and at - self._watching_at < WATCHING_EVERY):
            return
        self._watching_at = at
        print_note(watch_line(report.machines(), len(report.snapshot.accounts)), at=at)

    def _print_orphans(self) -> None:
        """Print latched stages whose policy or account is gone, as published in the store."""
        from killswitch.operations.pages.wording import orphan_line
        from killswitch.runner.status_blob import LIVE_NAME, decode_view

        blob = self._store.live(LIVE_NAME)
        for orphan in () if blob is None else decode_view(blob).orphans:
            print_note(orphan_line(orphan))

    def _close_result(self, decision: str) -> str | None:
        """The result of a close in the term of `history`; None while the record has no end."""
        from killswitch.operations.commands import close_status

        stored = self._store.decision(decision)
        close_result = None if stored is None else close_status(self._store, stored.decision)
        return None if close_result == "closing" else close_result

    def stop_summary(self) -> str:
        """Summary of unfinished closes at a stop."""
        from killswitch.model.snapshot import IN_PROGRESS

        open_ = [decision for decision, status in self._closing.items() if status in IN_PROGRESS]
        if not open_:
            return "no close is in progress"
        return f"unfinished closes, resumed at the next start: {', '.join(open_)}"
