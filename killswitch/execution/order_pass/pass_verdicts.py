"""The verdicts of one pass: every target compared with the snapshot and with our own fills. Sends nothing."""

from __future__ import annotations

from decimal import Decimal

from killswitch.execution.account_context import AccountContext
from killswitch.execution.decide.ladder import orders_before_last_step
from killswitch.execution.decide.outside_trades import OutsideTrades
from killswitch.execution.decide.position_trust import TrustedBook
from killswitch.execution.decide.target_verdict import WAIT, TargetAction, TargetVerdict, ended, evaluate_target
from killswitch.execution.order_pass.trusted_positions import TrustedPositions
from killswitch.execution.state.execution_state import ExecutionState
from killswitch.journal.lifecycle import TargetState
from killswitch.journal.targets import PositionTarget, TargetName
from killswitch.model.snapshot import AccountSnapshot


class TargetEvaluator:
    """Evaluates targets, and tracks how often and for how long the venue has contradicted our fills."""

    def __init__(self, context: AccountContext, state: ExecutionState, positions: TrustedPositions) -> None:
        self._context = context
        self._state = state
        self._positions = positions
        self._contradictions: dict[TargetName, tuple[int, float, TrustedBook]] = {}
        """For each target: number of contradicting snapshots, time of the first, and the last; each counts once."""
        self._outside = OutsideTrades()

    def collect(self, account: AccountSnapshot, *, is_newest: bool) -> None:
        """Collect the trades of others from a snapshot of the executor or the runner.

        `is_newest`: whether it was requested after the last change of an order of ours.
        """
        self._outside.collect(account, self._state.ledgers, is_newest=is_newest)

    def assumed_position(self, target: PositionTarget, book: TrustedBook) -> Decimal:
        """The position assumed to be held before the target's next order."""
        shown = held(target, book)
        if target.is_counted_by_fills or self._is_believed(target):
            return shown
        ledger = self._state.ledger(target.key)
        return ledger.assumed(shown, self._outside.grown(target.key, ledger))

    @property
    def is_contradicted(self) -> bool:
        """Whether a target waits because the venue shows more than our fills have left."""
        return bool(self._contradictions)

    def forget(self, target: PositionTarget) -> None:
        """Reset the contradictions of a target, after an order was sent or the target ended."""
        self._contradictions.pop(target.name, None)

    def evaluate(self, target: PositionTarget, book: TrustedBook) -> TargetVerdict:
        """The verdict on a target. If the venue keeps contradicting our fills, the venue's positions are accepted."""
        if not is_shown(target, book):
            return WAIT
        job = self._state.jobs[target.decision]
        if job.given_up is not None and not target.is_in_flight and target.state is not TargetState.SETTLED:
            return given_up(target, job.given_up, held(target, book))
        if target.name in job.unsupplied and not target.is_in_flight:
            return ended(TargetAction.GIVE_UP, target, "the proceeds of the sale before it are unknown")
        believe = self._is_contradicted_enough(target)
        if (
            target.name in job.short
            and not believe
            and not target.is_in_flight
            and target.state is not TargetState.SETTLED
        ):
            verdict = TargetVerdict(TargetAction.CONTRADICTED)
        else:
            ledger = self._state.ledger(target.key)
            verdict = evaluate_target(
                target,
                held(target, book),
                ledger,
                self._positions.instruments.get(target.symbol),
                attempts=self._context.pace.fruitless_attempts + orders_before_last_step(job.ladder),
                believe_venue=self._is_believed(target),
                grown=self._outside.grown(target.key, ledger),
            )
        if verdict.do is TargetAction.NOTHING and target.name in job.short:
            verdict = ended(TargetAction.GIVE_UP, target, "less has arrived than the sale before it was paid")
        if verdict.do is TargetAction.CONTRADICTED:
            count, since, last = self._contradictions.get(target.name, (0, self._context.monotonic(), None))
            self._contradictions[target.name] = (count + (last is not book), since, book)
        elif verdict.do is TargetAction.NOTHING or (not believe and not verdict.is_final):
            self._contradictions.pop(target.name, None)
        return verdict

    def _is_believed(self, target: PositionTarget) -> bool:
        """Whether the position that the venue shows counts although our fills leave less."""
        ledger = self._state.ledger(target.key)
        is_opened_again = target.is_capped_by_venue and self._outside.is_opened_again(target.key, ledger)
        return is_opened_again or self._is_contradicted_enough(target)

    def _is_contradicted_enough(self, target: PositionTarget) -> bool:
        if target.name not in self._contradictions:
            return False
        count, since, _ = self._contradictions[target.name]
        pace, now = self._context.pace, self._context.monotonic()
        return count >= pace.confirm_snapshots and now - since >= pace.confirm_after


class PassVerdicts:
    """The verdicts of one pass, each computed on demand, so that the first order does not wait for the last verdict."""

    def __init__(self, evaluator: TargetEvaluator, book: TrustedBook) -> None:
        self._evaluator = evaluator
        self._verdicts: dict[TargetName, TargetVerdict] = {}
        self.book = book

    def of(self, target: PositionTarget) -> TargetVerdict:
        """The verdict on `target`."""
        verdict = self._verdicts.get(target.name)
        if verdict is None:
            verdict = self._verdicts[target.name] = self._evaluator.evaluate(target, self.book)
        return verdict


def given_up(target: PositionTarget, why: str, shown: Decimal | None) -> TargetVerdict:
    """The verdict on a target that an operator gave up. `shown`: the position, if a snapshot shows it."""
    reached = target.state is TargetState.AT_TARGET if shown is None else shown <= target.target_size
    return TargetVerdict(TargetAction.NOTHING) if reached else ended(TargetAction.GIVE_UP, target, why)


def held(target: PositionTarget, book: TrustedBook) -> Decimal:
    """What is left to trade: the position, or the remainder of a target that is counted by its fills."""
    return target.remaining if target.is_counted_by_fills else book.contracts(target.key)


def is_shown(target: PositionTarget, book: TrustedBook) -> bool:
    """Whether the snapshot shows the target's position."""
    return target.is_counted_by_fills or target.key not in book.unconfirmed
