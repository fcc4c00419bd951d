"""Keys of a policy that change nothing: what was written is most likely not what was meant."""

from __future__ import annotations

from collections.abc import Callable
from decimal import Decimal

from killswitch.graph.findings import Findings
from killswitch.policy.documents import PolicySpec, ThresholdTrigger

NOISE_IN_A_MINUTE = Decimal("0.005")
"""Of equity: no more counts as noise, whatever the tolerance is."""
_HOLD_AT_ZERO: dict[str, Callable[[Decimal], bool]] = {
    "at_least": lambda number: number <= 0,
    "above": lambda number: number < 0,
    "at_most": lambda number: number >= 0,
    "below": lambda number: number > 0,
}
"""Comparison → whether it holds for a signal that is 0."""


def check_idle(policy: PolicySpec, found: Findings) -> None:
    """Warn of keys that are written and change nothing."""
    flawed = found.gaps.flawed
    for number, stage in enumerate(policy.stages):
        closes = any(action.close is not None or action.cancel_orders is not None for action in stage.actions)
        unread = flawed(("spec", "stages", number, "actions"))
        if not closes and not unread and _is_written(found, ("spec", "stages", number, "when_unreachable")):
            message = f"`{stage.name}` closes and cancels nothing, so that nothing of it waits for an account"
            found.warning(
                "KS5016", ("spec", "stages", number, "when_unreachable"), message, "take it out, or add a `close`",
                key=True,
            )  # fmt: skip
    locks = any(action.lock_trading is not None for stage in policy.stages for action in stage.actions)
    lists = [("spec", "stages", number, "actions") for number in range(len(policy.stages))]
    unread = found.gaps.unread(("spec", "stages")) or any(flawed(each) for each in lists)
    if policy.on_suspicion == "lock" and not locks and not unread and _is_written(found, ("spec", "on_suspicion")):
        message = "no stage has `lock_trading`, so that there is no lock to write on suspicion"
        found.warning("KS5016", ("spec", "on_suspicion"), message, "add `lock_trading` to a stage, or take it out")
    if not flawed(("spec", "unexplained")) and policy.unexplained.tolerance > 2 * NOISE_IN_A_MINUTE:
        message = "at most 0.5% of equity a minute counts as noise, however large the tolerance is"
        found.warning("KS5016", ("spec", "unexplained", "tolerance"), message, "write a smaller one, or take it out")
    _unexplained(policy, found)


def _unexplained(policy: PolicySpec, found: Findings) -> None:
    """Warn of a threshold on unexplained money that holds while there is none."""
    for name, trigger in policy.triggers.items():
        if not isinstance(trigger, ThresholdTrigger) or trigger.signal != "equity.unexplained":
            continue
        if found.gaps.flawed(("spec", "triggers", name)):
            continue
        for comparison, holds in _HOLD_AT_ZERO.items():
            written = getattr(trigger, comparison)
            if written is not None and holds(written.value):
                message = f"`{name}` holds on a quiet account, where nothing is unexplained and the sum is 0"
                fix = "falls are below zero: write `at_most: -10000 USDT`; `at_least: 10000 USDT` is money that came in"
                found.warning("KS5017", ("spec", "triggers", name, comparison), message, fix)


def _is_written(found: Findings, path: tuple[str | int, ...]) -> bool:
    return found.source.node(path) is not None
