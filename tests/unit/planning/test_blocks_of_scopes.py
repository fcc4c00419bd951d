"""Scopes that are observed and read in blocks decide what each of them decides alone."""

from __future__ import annotations

from msgspec.structs import replace

from killswitch.model.snapshot import AccountSnapshot, Snapshot
from killswitch.planning.interpreter import BLOCK, Interpreter, Outcome
from tests.graphs import FALL_15M, close, graph, policy_set, stage, trigger
from tests.worlds import account, after, position, snapshot

COUNT, MINUTES = BLOCK * 2 + 3, 6
NAMES = {"near": 0.03, "far": 0.06}
CUT = stage("cut", 1, 0, actions=(close("losing", "0.5"),))
POLICIES = [graph((FALL_15M,), (trigger("fall", 0, limit),), (CUT,), policy=name) for name, limit in NAMES.items()]


def account_at(number: int, minute: int) -> AccountSnapshot:
    """Account `number` loses up to a tenth of its equity, at a pace of its own; every seventh one is down for a
    minute."""
    if number % 7 == 3 and minute == 2:
        return account(None, None, name=f"a{number}", quality="down", reason="timeout")
    lost = min(10_000, 100 * number % 1_700 * minute)
    held = position("L", "long", str(-lost), contracts="10", notional="50000", margin="10000")
    return account(str(100_000 - lost), [held], name=f"a{number}")


def stream(numbers: range) -> list[Snapshot]:
    """A snapshot a minute; after the third one a pass that polls every second account and repeats the others."""
    found = [snapshot(after(minutes=minute), *(account_at(it, minute) for it in numbers)) for minute in range(MINUTES)]
    repeated = [account_at(it, 4 if it % 2 else 3) for it in numbers]
    found.insert(4, replace(snapshot(after(minutes=3.5), *repeated), scheduled=False))
    return found


def outcomes(numbers: range) -> tuple[list[Outcome], Interpreter]:
    interpreter = Interpreter(policy_set(*POLICIES))
    return [interpreter.tick(each) for each in stream(numbers)], interpreter


def test_scopes_in_blocks_decide_as_each_of_them_alone() -> None:
    """The policies in their order, and in each the accounts in theirs, in spite of an account that is down, and of a
    pass that repeats some of a block."""
    together, interpreter = outcomes(range(COUNT))
    alone = [outcomes(range(number, number + 1)) for number in range(COUNT)]
    of_each = {each.scope: each for _, own in alone for each in own.status() if each.policy == "near"}
    assert {each.scope: each for each in interpreter.status() if each.policy == "near"} == of_each
    decided = [
        [each for name in NAMES for own, _ in alone for each in own[tick].decisions if each.policy == name]
        for tick in range(MINUTES + 1)
    ]
    assert sum(map(len, decided)) > BLOCK
    assert [
        [(each.policy, each.scope, each.stage, each.intents, each.triggers) for each in outcome.decisions]
        for outcome in together
    ] == [[(each.policy, each.scope, each.stage, each.intents, each.triggers) for each in tick] for tick in decided]
    assert [len(outcome.notices) for outcome in together] == [
        sum(len(own[tick].notices) for own, _ in alone) for tick in range(MINUTES + 1)
    ]
