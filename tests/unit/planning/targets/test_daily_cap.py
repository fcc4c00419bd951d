"""`daily_cap`: closes that may select only so many positions in 24 hours, and those that are never counted."""

from __future__ import annotations

from msgspec.structs import replace

from killswitch.graph.nodes import PolicySet
from killswitch.model.snapshot import Snapshot
from killswitch.planning.interpreter import Interpreter, Outcome
from tests.backtests import written
from tests.notifying import NotifyingInterpreter
from tests.worlds import account, after, position, snapshot

POLICIES = written("""
apiVersion: killswitch.dev/v1
kind: Policy
metadata: {name: capped}
spec:
  mode: enforce
  scope: {each: account, match: {}}
  max_gap: 48h
  triggers:
    geared: {signal: exposure.leverage, at_least: 3, on_unknown: hold}
    crash: {signal: equity.drawdown_from_peak, at_least: 20%, on_unknown: hold}
  stages:
    - name: trim
      level: 1
      any: [geared]
      cooldown: 0s
      reset: {auto: {when: 'exposure.leverage < 2.0', for: 0s}}
      actions: [{close: {side: both, top: 2, fraction: 100%, daily_cap: 3}}]
    - name: everything
      level: 3
      any: [crash]
      cooldown: 0s
      reset: {auto: {when: 'exposure.leverage < 2.0', for: 0s}}
      actions: [{close: {side: both, fraction: 100%}}]
""")


def book(minute: float, *, geared: bool, lost: int = 0) -> Snapshot:
    """Four positions, 4 x or 1 x of an equity of 100,000, of which `lost` is lost by prices."""
    size = "100000" if geared else "25000"
    held = [position(symbol, "long", str(-lost // 4), notional=size, mark_price="100") for symbol in "ABCD"]
    at = after(minutes=minute)
    return snapshot(at, account(str(100_000 - lost), held, observed_at=at))


def closed(outcome: Outcome) -> list[tuple[str | None, int]]:
    """Stage and number of positions of each decision that closes some."""
    return [(each.stage, len(each.intents)) for each in outcome.decisions if each.intents]


def trims(interpreter: Interpreter, minute: float) -> list[tuple[str | None, int]]:
    """What closes when leverage rises, after it was low."""
    interpreter.tick(book(minute, geared=False))
    return closed(interpreter.tick(book(minute + 1, geared=True)))


def test_d12_a_daily_cap_does_not_limit_the_catastrophe_layer() -> None:
    """Two and one of three positions a day are trimmed, then none; the close of everything is neither limited nor
    counted, and a day later two are trimmed again."""
    interpreter = Interpreter(POLICIES)
    assert [trims(interpreter, minute) for minute in (0, 10, 20)] == [[("trim", 2)], [("trim", 1)], []]
    assert closed(interpreter.tick(book(30, geared=True, lost=30_000))) == [("everything", 4)]
    assert trims(interpreter, 24 * 60) == [("trim", 2)]  # of the three, the first two are a day old
    assert trims(interpreter, 24 * 60 + 60) == [("trim", 1)]  # and the third


def test_a_close_beyond_the_cap_pages_and_does_not_latch() -> None:
    """The page says what is not closed and why; the stage may fire as soon as the cap allows."""
    interpreter = NotifyingInterpreter(POLICIES)
    for minute in (0, 10):
        interpreter.tick(book(minute, geared=False))
        interpreter.tick(book(minute + 1, geared=True))
    interpreter.tick(book(20, geared=False))
    outcome = interpreter.tick(book(21, geared=True))
    (notice,) = outcome.notices
    assert (notice.severity, notice.kind) == ("page", "nothing_selected")
    assert "2 positions not closed: the closes of 24 hours have reached their cap of 3 positions" in notice.text


def test_the_count_of_the_cap_outlasts_a_restart() -> None:
    """One of three is left after a restart."""
    first, second = Interpreter(POLICIES), Interpreter(POLICIES)
    assert trims(first, 0) == [("trim", 2)]
    second.restore(first.states(), lambda _policy, _scope, _since: ())
    assert trims(second, 10) == [("trim", 1)]


LAYER = """
apiVersion: killswitch.dev/v1
kind: Policy
metadata: {{name: {name}}}
spec:
  mode: enforce
  scope: {{each: account, match: {{}}}}
  max_gap: 48h
  triggers: {{geared: {{signal: exposure.leverage, at_least: {at}, on_unknown: hold}}}}
  stages:
    - name: {name}
      level: 1
      any: [geared]
      cooldown: 0s
      reset: {{auto: {{when: 'exposure.leverage < 2.0', for: 0s}}}}
      actions: [{{close: {{side: {side}, {close}, fraction: 100%}}}}]
"""


def layers(*closes: tuple[str, str], at: int = 3) -> PolicySet:
    """A policy for each name and what its close says."""
    return written("---".join(LAYER.format(name=name, close=close, side="both", at=at) for name, close in closes))


def test_policies_of_a_cap_group_count_together_and_others_by_themselves() -> None:
    """Two a day of both: A of the first, and one of B and C of the second, in one tick; neither ten minutes later.

    The third is not in the group, and closes D each time.
    """
    found = layers(
        ("first", "symbols: [A], daily_cap: 2, cap_group: bleed"),
        ("second", "symbols: [B, C], daily_cap: 2, cap_group: bleed"),
        ("third", "symbols: [D], daily_cap: 4"),
    )
    interpreter = Interpreter(found)
    assert trims(interpreter, 0) == [("first", 1), ("second", 1), ("third", 1)]
    assert trims(interpreter, 10) == [("third", 1)]
    assert trims(interpreter, 24 * 60 + 20) == [("first", 1), ("second", 1), ("third", 1)]


def test_a_cap_of_a_group_outlasts_a_restart_and_is_of_one_scope() -> None:
    """Another account has a cap of its own."""
    closes = [(name, "top: 2, daily_cap: 2, cap_group: bleed") for name in ("first", "second")]
    first, second = Interpreter(layers(*closes)), Interpreter(layers(*closes))
    assert trims(first, 0) == [("first", 2)]
    second.restore(first.states(), lambda _policy, _scope, _since: ())
    assert trims(second, 10) == []
    both = [book(20, geared=False), book(21, geared=True)]
    others = [snapshot(each.as_of, *each.accounts, replace(each.accounts[0], account="other")) for each in both]
    second.tick(others[0])
    made = [(each.scope, len(each.intents)) for each in second.tick(others[1]).decisions if each.intents]
    assert made == [("account/other", 2)]


def test_a_close_without_a_cap_counts_in_its_group_and_is_not_limited() -> None:
    """Four of the first take the three of the second; the first closes again all the same."""
    found = layers(("first", "cap_group: bleed"), ("second", "top: 2, daily_cap: 3, cap_group: bleed"))
    interpreter = Interpreter(found)
    assert trims(interpreter, 0) == [("first", 4)]
    assert trims(interpreter, 10) == [("first", 4)]
