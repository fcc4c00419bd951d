"""What a tick is called elsewhere: on its span, and in the notices that it gives rise to."""

from __future__ import annotations

from killswitch.model.decision import Notice
from killswitch.model.instant import to_micros
from killswitch.model.snapshot import AccountSnapshot, Closing, Snapshot
from killswitch.model.tracing import AS_OF, Span
from killswitch.runner.reading import FIRST_ANSWER
from killswitch.runner.witnesses import TickReport


def describe(span: Span, report: TickReport) -> None:
    """Say on the tick's span what came of it."""
    span.set(AS_OF, to_micros(report.snapshot.as_of))
    span.set("killswitch.scheduled", report.snapshot.scheduled)
    span.set("killswitch.streams.silent", sum(stream.state != "heard" for stream in report.streams))
    span.set("killswitch.timers.armed", sum(timer.state == "armed" for timer in report.timers))
    span.set("killswitch.decisions", len(report.decisions))
    span.set("killswitch.acting_on", len(report.acting_on))
    span.set("killswitch.notices", len(report.notices))
    span.set("killswitch.problems", len(report.problems))


def unsaid(notices: tuple[Notice, ...], snapshot: Snapshot) -> tuple[Notice, ...]:
    """The notices but those of a close that left something: its end is told to people as such."""
    said = {shortfall(closing) for closing in snapshot.closings}
    return tuple(notice for notice in notices if notice.text not in said)


def reading_words(account: AccountSnapshot) -> str:
    """How an account could not be read, as what it is said to be; empty where it could."""
    if account.quality == "ok":
        return ""
    reason = account.reason or "no reason given"
    # Nobody has said yet that anything is wrong with it.
    return f"not read yet: {reason}" if reason.startswith(FIRST_ANSWER) else f"{account.quality}: {reason}"


def shortfall(closing: Closing) -> str | None:
    """What a person must know of a closing that has ended and left something; None for all others."""
    if closing.status not in ("residual", "blocked", "abandoned"):
        return None
    residual = closing.residual
    left = ", ".join(f"{r.contracts.normalize():f} {r.symbol} {r.position_side} on {r.account}" for r in residual)
    end = f"the closing of decision {closing.decision} ended {closing.status}"
    return f"{end}; left: {left or 'no position known'} (ksctl explain {closing.decision} says why)"
