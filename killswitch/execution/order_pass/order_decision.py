"""Decides about every line in a pass by comparing the snapshot with our own fills. Sends nothing."""

from __future__ import annotations

from decimal import Decimal

from killswitch.execution.account_context import AccountContext
from killswitch.execution.decide.ladder import orders_before_last_step
from killswitch.execution.decide.line_verdict import WAIT, LineAction, LineVerdict, ended, evaluate_line
from killswitch.execution.decide.position_trust import TrustedBook
from killswitch.execution.order_pass.trusted_positions import TrustedPositions
from killswitch.execution.state.execution_state import ExecutionState
from killswitch.journal.lifecycle import TargetState
from killswitch.journal.targets import PositionTarget, TargetName


class OrderDecisions:
    """Evaluates lines, and tracks how often and for how long the venue has contradicted our fills."""

    def __init__(self, context: AccountContext, state: ExecutionState, positions: TrustedPositions) -> None:
        self._context = context
        self._state = state
        self._positions = positions
        self._contradictions: dict[TargetName, tuple[int, float, TrustedBook]] = {}
        """For each line: number of contradicting snapshots, time of the first, and the last; each counts once."""

    def assumed_position(self, line: PositionTarget, book: TrustedBook) -> Decimal:
        """The position assumed to be held before the line's next order."""
        shown = held(line, book)
        if line.is_counted_by_fills or self._is_contradicted_enough(line):
            return shown
        return self._state.ledger(line.key).assumed(shown)

    def forget(self, line: PositionTarget) -> None:
        """Reset the contradictions of a line, after an order was sent or the line ended."""
        self._contradictions.pop(line.name, None)

    def evaluate(self, line: PositionTarget, book: TrustedBook) -> LineVerdict:
        """The verdict on a line. If the venue keeps contradicting our fills, the venue's positions are accepted."""
        if not is_shown(line, book):
            return WAIT
        job = self._state.jobs[line.decision]
        if job.given_up is not None and not line.is_in_flight and line.state is not TargetState.SETTLED:
            return given_up(line, job.given_up, held(line, book))
        if line.name in job.unsupplied and not line.is_in_flight:
            return ended(LineAction.GIVE_UP, line, "the proceeds of the sale before it are unknown")
        believe = self._is_contradicted_enough(line)
        if line.name in job.short and not believe and not line.is_in_flight and line.state is not TargetState.SETTLED:
            verdict = LineVerdict(LineAction.CONTRADICTED)
        else:
            verdict = evaluate_line(
                line,
                held(line, book),
                self._state.ledger(line.key),
                self._positions.instruments.get(line.symbol),
                attempts=self._context.pace.fruitless_attempts + orders_before_last_step(job.ladder),
                believe_venue=believe,
            )
        if verdict.do is LineAction.NOTHING and line.name in job.short:
            verdict = ended(LineAction.GIVE_UP, line, "less has arrived than the sale before it was paid")
        if verdict.do is LineAction.CONTRADICTED:
            count, since, last = self._contradictions.get(line.name, (0, self._context.monotonic(), None))
            self._contradictions[line.name] = (count + (last is not book), since, book)
        elif verdict.do is LineAction.NOTHING or (not believe and not verdict.is_final):
            self._contradictions.pop(line.name, None)
        return verdict

    def _is_contradicted_enough(self, line: PositionTarget) -> bool:
        if line.name not in self._contradictions:
            return False
        count, since, _ = self._contradictions[line.name]
        pace, now = self._context.pace, self._context.monotonic()
        return count >= pace.confirm_snapshots and now - since >= pace.confirm_after


class LineVerdicts:
    """The verdicts of one pass, each computed on demand, so that the first order does not wait for the last verdict."""

    def __init__(self, decisions: OrderDecisions, book: TrustedBook) -> None:
        self._decisions = decisions
        self._verdicts: dict[TargetName, LineVerdict] = {}
        self.book = book

    def of(self, line: PositionTarget) -> LineVerdict:
        """The verdict on `line`."""
        verdict = self._verdicts.get(line.name)
        if verdict is None:
            verdict = self._verdicts[line.name] = self._decisions.evaluate(line, self.book)
        return verdict


def given_up(line: PositionTarget, why: str, shown: Decimal | None) -> LineVerdict:
    """The verdict on a line that an operator gave up. `shown`: the position, if a snapshot shows it."""
    reached = line.state is TargetState.AT_TARGET if shown is None else shown <= line.target
    return LineVerdict(LineAction.NOTHING) if reached else ended(LineAction.GIVE_UP, line, why)


def held(line: PositionTarget, book: TrustedBook) -> Decimal:
    """What is left to trade: the position, or the remainder of a line that is counted by its fills."""
    return line.remaining if line.is_counted_by_fills else book.contracts(line.key)


def is_shown(line: PositionTarget, book: TrustedBook) -> bool:
    """Whether the snapshot shows the line's position."""
    return line.is_counted_by_fills or line.key not in book.unconfirmed
