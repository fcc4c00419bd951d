"""The verdict on every line in a pass: the snapshot compared with our own fills. Sends nothing."""

from __future__ import annotations

from decimal import Decimal

from killswitch.execution.account_context import AccountContext
from killswitch.execution.decide.ladder import before_the_last
from killswitch.execution.decide.line_verdict import WAIT, LineAction, LineVerdict, ended, judge
from killswitch.execution.decide.position_trust import TrustedBook
from killswitch.execution.order_pass.trusted_positions import TrustedPositions
from killswitch.execution.state.execution_state import ExecutionState
from killswitch.journal.lifecycle import TargetState
from killswitch.journal.targets import PositionTarget, TargetName


class OrderJudge:
    """Judges lines, and tracks how often and for how long the venue has contradicted our fills."""

    def __init__(self, context: AccountContext, memory: ExecutionState, looking: TrustedPositions) -> None:
        self._context = context
        self._memory = memory
        self._looking = looking
        self._contradictions: dict[TargetName, tuple[int, float, TrustedBook]] = {}
        """Number of contradicting snapshots, since when, and the last of them: each counts once."""

    def believed(self, line: PositionTarget, reading: TrustedBook) -> Decimal:
        """The position believed to be held before the line's next order."""
        shown = held(line, reading)
        if line.is_counted_by_fills or self._is_contradicted_enough(line):
            return shown
        return self._memory.ledger(line.key).assumed(shown)

    def forget(self, line: PositionTarget) -> None:
        """Reset the contradictions of a line, after an order was sent or the line ended."""
        self._contradictions.pop(line.name, None)

    def judge(self, line: PositionTarget, reading: TrustedBook) -> LineVerdict:
        """The verdict on a line. If the venue keeps contradicting our fills, the venue is believed."""
        if not is_shown(line, reading):
            return WAIT
        work = self._memory.jobs[line.decision]
        if work.given_up is not None and not line.is_in_flight and line.state is not TargetState.SETTLED:
            return given_up(line, work.given_up, held(line, reading))
        if line.name in work.unsupplied and not line.is_in_flight:
            return ended(LineAction.GIVE_UP, line, "the proceeds of the sale before it are unknown")
        believe = self._is_contradicted_enough(line)
        if line.name in work.short and not believe and not line.is_in_flight and line.state is not TargetState.SETTLED:
            verdict = LineVerdict(LineAction.DOUBT)
        else:
            verdict = judge(
                line,
                held(line, reading),
                self._memory.ledger(line.key),
                self._looking.instruments.get(line.symbol),
                attempts=self._context.pace.fruitless_attempts + before_the_last(work.ladder),
                believe_venue=believe,
            )
        if verdict.do is LineAction.NOTHING and line.name in work.short:
            verdict = ended(LineAction.GIVE_UP, line, "less has arrived than the sale before it was paid")
        if verdict.do is LineAction.DOUBT:
            count, since, last = self._contradictions.get(line.name, (0, self._context.clock.monotonic(), None))
            self._contradictions[line.name] = (count + (last is not reading), since, reading)
        elif verdict.do is LineAction.NOTHING or (not believe and not verdict.is_final):
            self._contradictions.pop(line.name, None)
        return verdict

    def _is_contradicted_enough(self, line: PositionTarget) -> bool:
        if line.name not in self._contradictions:
            return False
        count, since, _ = self._contradictions[line.name]
        pace, now = self._context.pace, self._context.clock.monotonic()
        return count >= pace.doubt_reads and now - since >= pace.doubt_for


class LineVerdicts:
    """The verdicts of one pass, each computed on demand, so that the first order does not wait for the last verdict."""

    def __init__(self, judging: OrderJudge, reading: TrustedBook) -> None:
        self._judging = judging
        self._made: dict[TargetName, LineVerdict] = {}
        self.reading = reading

    def of(self, line: PositionTarget) -> LineVerdict:
        """The verdict on `line`."""
        made = self._made.get(line.name)
        if made is None:
            made = self._made[line.name] = self._judging.judge(line, self.reading)
        return made


def given_up(line: PositionTarget, why: str, shown: Decimal | None) -> LineVerdict:
    """The verdict on a line that an operator gave up. `shown`: the position, if a snapshot shows it."""
    reached = line.state is TargetState.AT_TARGET if shown is None else shown <= line.target
    return LineVerdict(LineAction.NOTHING) if reached else ended(LineAction.GIVE_UP, line, why)


def held(line: PositionTarget, reading: TrustedBook) -> Decimal:
    """What is left to trade: the position, or the remainder of a line that is counted by its fills."""
    return line.remaining if line.is_counted_by_fills else reading.contracts(line.key)


def is_shown(line: PositionTarget, reading: TrustedBook) -> bool:
    """Whether the snapshot shows the line's position."""
    return line.is_counted_by_fills or line.key not in reading.doubtful
