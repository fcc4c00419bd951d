"""What `on_unknown` costs: the same worlds under each choice, for the table of docs/on-unknown.md.

    python -m tests.evidence.on_unknown [WORLDS] [SEED]

The trigger is a fall of 10% from the peak, which is known from the first tick, and its stage closes everything. A close
is *false* if the account had never truly lost 8% before it. Times count from the instant at which the true fall exceeds
10.5%; they are negative for what happens before it.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from random import Random
from tempfile import TemporaryDirectory
from typing import Final

from msgspec import Struct

from killswitch.graph.compile import compile_loaded
from killswitch.graph.nodes import PolicySet
from killswitch.planning.interpreter import Interpreter
from killswitch.policy.loader import load
from tests.worlds.catalogue import FAMILIES
from tests.worlds.families import Desk, event_time, loss_fraction, view
from tests.worlds.judge import CLEAR, NEAR, THRESHOLD, Setup, is_close, seeded
from tests.worlds.report import percentile
from tests.worlds.venue_view import Feed

POLICY: Final = """\
apiVersion: killswitch.dev/v1
kind: Policy
metadata: {{name: on-unknown}}
spec:
  mode: enforce
  scope: {{each: account, match: {{}}}}
  max_gap: 10m
  triggers:
    fall: {{signal: equity.drawdown_from_peak, at_least: 10%, on_unknown: {choice}}}
{silent}  stages:
    - name: close-everything
      level: 3
      any: [fall]
      cooldown: 6h
      reset: manual
      actions:
        - lock_trading: {{mode: reduce_only}}
        - close: {{side: both, fraction: 100%}}
"""
SILENT: Final = """\
    silent: {signal: venue.age, at_least: 10s, on_unknown: hold}
"""
LOCK_ONLY: Final = """\
    - name: lock-only
      level: 1
      any: [silent]
      cooldown: 1m
      reset: {auto: {when: 'venue.age < 5.0', for: 1m}}
      actions: [lock_trading: {mode: reduce_only, for: 5m}]
"""
AND_A_LOCK: Final = "hold, and a stage that only locks after 10 s of silence"
CHOICES: Final = (
    "hold", "hold, confirm: 10s", "warn, confirm: 10s", AND_A_LOCK, "trip", "trip, confirm: 10s", "trip, confirm: 30s",
)  # fmt: skip


COLUMNS: Final = (
    "situation", "`on_unknown`", "closed without a loss", "only locked without a loss", "lock, p50 / p90",
    "orders, p50 / p90", "not closed",
)  # fmt: skip


def quiet_outage(rng: Random) -> Setup:
    """No loss of more than 4%, and a venue that does not answer for 5 to 60 s."""
    begin = event_time(rng)
    desk = Desk(rng, loss=rng.uniform(0.0, 0.04), begin=begin, lasts=20.0)
    return desk.setup(view(rng, down=[(begin, begin + rng.uniform(5.0, 60.0))]))


def outage_in_crash(rng: Random) -> Setup:
    """The same outage, which begins up to 10 s before or after a fall that costs 13 to 35%."""
    begin = event_time(rng)
    dies = begin + rng.uniform(-10.0, 10.0)
    desk = Desk(rng, loss=loss_fraction(rng), begin=begin, lasts=rng.uniform(0.0, 20.0))
    return desk.setup(view(rng, down=[(dies, dies + rng.uniform(5.0, 60.0))]))


SITUATIONS: Final[dict[str, Callable[[Random], Setup]]] = {
    "no loss, outage of 5 to 60 s": quiet_outage,
    "no loss, money withdrawn in an outage": FAMILIES["attack: money leaves while the venue is down"].make,
    "crash, outage of 5 to 60 s": outage_in_crash,
    "crash, everything answers": FAMILIES["ordinary crash"].make,
}


class Seen(Struct, frozen=True):
    """One world: when the loss was real, and the first lock and the first orders of the stage. None: never."""

    real: float | None
    locked: float | None
    ordered: float | None
    false: bool


def compiled(choice: str) -> PolicySet:
    """The policy with this choice."""
    with TemporaryDirectory() as folder:
        path = Path(folder) / "policy.yaml"
        is_extended = choice == AND_A_LOCK
        text = POLICY.format(choice="hold" if is_extended else choice, silent=SILENT if is_extended else "")
        path.write_text(text + (LOCK_ONLY if is_extended else ""), encoding="utf-8")
        found, problems = compile_loaded(load([path]))
    assert found is not None, problems
    return found


def observe(setup: Setup, seed: int, policies: PolicySet) -> Seen:
    """Run one world through the interpreter."""
    interpreter = Interpreter(policies)
    (truth,) = (truth for truth, _ in setup.world.truths if truth.scope != "portfolio")
    locked = ordered = None
    is_false = False
    for at, snapshot, _ in Feed(setup.world, setup.views, Random(seed ^ 0x5EED), tick=setup.tick):
        for decision in interpreter.tick(snapshot).decisions:
            if locked is None and decision.lock is not None:
                locked = at
            if ordered is None and is_close(decision) and decision.intents:
                ordered, is_false = at, truth.worst(at) < NEAR * THRESHOLD
    return Seen(truth.crossed(CLEAR * THRESHOLD), locked, ordered, is_false)


def row(situation: str, choice: str, seen: list[Seen]) -> str:
    """A line of the table."""
    worlds = len(seen)
    false = sum(each.false for each in seen)
    locked = sum(each.real is None and each.locked is not None and not each.false for each in seen)
    real = [each for each in seen if each.real is not None and not each.false]
    locks = [each.locked - each.real for each in real if each.locked is not None and each.real is not None]
    orders = [each.ordered - each.real for each in real if each.ordered is not None and each.real is not None]
    missed = sum(each.ordered is None for each in real)
    cells = (
        situation, choice, f"{false / worlds:.0%}", f"{locked / worlds:.0%}", _seconds(locks), _seconds(orders),
        str(missed) if real else "–",
    )  # fmt: skip
    return f"| {' | '.join(cells)} |"


def _seconds(values: list[float]) -> str:
    return f"{percentile(values, 0.5):.1f} s / {percentile(values, 0.9):.1f} s" if values else "–"


def main(worlds: int, first: int) -> None:
    """Print the table."""
    print(f"| {' | '.join(COLUMNS)} |\n|{' --- |' * len(COLUMNS)}")
    for situation, make in SITUATIONS.items():
        for choice in CHOICES:
            policies = compiled(choice)
            seeds = range(first, first + worlds)
            print(
                row(situation, choice, [observe(make(seeded(situation, it)), it, policies) for it in seeds]), flush=True
            )


if __name__ == "__main__":
    main(*(int(it) for it in [*sys.argv[1:], *("40", "0")[len(sys.argv) - 1 :]]))
