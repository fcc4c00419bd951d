"""The verdict on every line in a pass: the snapshot compared with our own fills. Sends nothing."""

from __future__ import annotations

from decimal import Decimal

from killswitch.execution.account_context import AccountContext
from killswitch.execution.decide.ladder import before_the_last
from killswitch.execution.decide.position_trust import Reading
from killswitch.execution.decide.schedule import WAIT, Do, Verdict, judge
from killswitch.execution.order_pass.trusted_positions import Looking
from killswitch.execution.state.execution_state import Memory
from killswitch.journal.lifecycle import State
from killswitch.journal.targets import Line, LineName


class Judging:
    """Judges lines, and tracks how often and for how long the venue has contradicted our fills."""

    def __init__(self, context: AccountContext, memory: Memory, looking: Looking) -> None:
        self._context = context
        self._memory = memory
        self._looking = looking
        self._doubts: dict[LineName, tuple[int, float, Reading]] = {}
        """Number of contradicting snapshots, since when, and the last of them: each counts once."""

    def believed(self, line: Line, reading: Reading) -> Decimal:
        """The position believed to be held before the line's next order."""
        shown = held(line, reading)
        if line.by_fills or self._doubted_enough(line):
            return shown
        return self._memory.ledger(line.key).believed(shown)

    def forget(self, line: Line) -> None:
        """Reset the contradictions of a line, after an order was sent or the line ended."""
        self._doubts.pop(line.name, None)

    def judge(self, line: Line, reading: Reading) -> Verdict:
        """The verdict on a line. If the venue keeps contradicting our fills, the venue is believed."""
        if not told(line, reading):
            return WAIT
        work = self._memory.works[line.decision]
        if work.given_up is not None and not line.in_flight and line.state is not State.SETTLED:
            return given_up(line, work.given_up, held(line, reading))
        if line.name in work.unsupplied and not line.in_flight:
            return Verdict(Do.GIVE_UP, reason=f"{line.symbol}: the proceeds of the sale before it are unknown")
        believe = self._doubted_enough(line)
        if line.name in work.short and not believe and not line.in_flight and line.state is not State.SETTLED:
            verdict = Verdict(Do.DOUBT)
        else:
            verdict = judge(
                line,
                held(line, reading),
                self._memory.ledger(line.key),
                self._looking.instruments.get(line.symbol),
                attempts=self._context.pace.fruitless_attempts + before_the_last(work.ladder),
                believe_venue=believe,
            )
        if verdict.do is Do.NOTHING and line.name in work.short:
            why = "less has arrived than the sale before it was paid"
            verdict = Verdict(Do.GIVE_UP, reason=f"{line.symbol}: {why}")
        if verdict.do is Do.DOUBT:
            count, since, last = self._doubts.get(line.name, (0, self._context.clock.monotonic(), None))
            self._doubts[line.name] = (count + (last is not reading), since, reading)
        elif verdict.do is Do.NOTHING or (not believe and not verdict.ends):
            self._doubts.pop(line.name, None)
        return verdict

    def _doubted_enough(self, line: Line) -> bool:
        if line.name not in self._doubts:
            return False
        count, since, _ = self._doubts[line.name]
        return (
            count >= self._context.pace.doubt_reads
            and self._context.clock.monotonic() - since >= self._context.pace.doubt_for
        )


class Verdicts:
    """The verdicts of one pass, each computed on demand, so that the first order does not wait for the last verdict."""

    def __init__(self, judging: Judging, reading: Reading) -> None:
        self._judging = judging
        self._made: dict[LineName, Verdict] = {}
        self.reading = reading

    def of(self, line: Line) -> Verdict:
        """The verdict on `line`."""
        made = self._made.get(line.name)
        if made is None:
            made = self._made[line.name] = self._judging.judge(line, self.reading)
        return made


def given_up(line: Line, why: str, shown: Decimal | None) -> Verdict:
    """The verdict on a line that an operator gave up. `shown`: the position, if a snapshot shows it."""
    reached = line.state is State.AT_TARGET if shown is None else shown <= line.target
    return Verdict(Do.NOTHING) if reached else Verdict(Do.GIVE_UP, reason=f"{line.symbol}: {why}")


def held(line: Line, reading: Reading) -> Decimal:
    """What is left to trade: the position, or the remainder of a line that is counted by its fills."""
    return line.remaining if line.by_fills else reading.contracts(line.key)


def told(line: Line, reading: Reading) -> bool:
    """Whether the snapshot shows the line's position."""
    return line.by_fills or line.key not in reading.doubtful
