"""Random pairs of small policies, of which the second is an edit of the first."""

from __future__ import annotations

from copy import deepcopy
from random import Random
from typing import Any

from msgspec.structs import replace

from killswitch.graph.actions.cancel_orders import CancelOrders
from killswitch.graph.actions.lock_trading import LockTrading
from killswitch.graph.nodes import (
    Action,
    AllOf,
    AnyOf,
    AttributionRule,
    AutoReset,
    Compare,
    ConditionNode,
    Graph,
    Not,
    Number,
    SignalRead,
    SignalRef,
    Stage,
    Trigger,
)
from killswitch.model.instant import HOUR, MINUTE
from tests.graphs import close, graph, stage, trigger

SIGNALS = (
    SignalRef("equity.drawdown", (15 * MINUTE,)),
    SignalRef("equity.drawdown", (HOUR,)),
    SignalRef("equity.loss_from_start"),
    SignalRef("exposure.leverage"),
    SignalRef("venue.consecutive_failures"),
)
BOOK = frozenset({3, 4})
"""Signals that measure a condition: their triggers re-arm a level."""
VALUES = (0.02, 0.04, 0.06, 0.08)
CONFIRM, COOLDOWN, HOLD = (0, 0, 3, 10), (0, 4, 15), (0, 5, 12)
RULE = AttributionRule(0.65, "worst_ranked", "worst_ranked")

Spec = dict[str, Any]
"""A policy before it is compiled: `triggers` by name, `stages`, `mode`."""


def _threshold(random: Random, signal: int) -> float:
    return {3: random.choice([1.0, 2.0]), 4: random.choice([1.0, 2.0, 3.0])}.get(signal, random.choice(VALUES))


def _trigger(random: Random) -> Spec:
    signal = random.choice([0, 0, 1, 1, 1, 2, 3, 4])
    made = {
        "signal": signal, "at": _threshold(random, signal), "op": random.choice([">=", ">=", ">"]), "confirm": 0,
        "ticks": 0, "unknown": random.choice(["hold", "hold", "trip", "warn"]), "also": None,
    }  # fmt: skip
    if random.random() < 0.2:
        other = random.choice([0, 1, 2, 3])
        made["also"] = (random.choice(["and", "or", "not"]), other, _threshold(random, other))
    made["ticks" if random.random() < 0.25 else "confirm"] = random.choice(CONFIRM if made["also"] else (0, 1, 2, 3))
    return made


def _close(random: Random) -> Spec:
    return {
        "side": random.choice(["both", "both", "losing", "long", "short"]),
        "fraction": random.choice(["0.5", "0.8", "1"]), "top": random.choice([None, None, 1, 2]),
        "worst": random.choice([None, None, None, 0.6]), "symbols": random.choice([None, None, ("A", "B")]),
        "daily_cap": None,
    }  # fmt: skip


def _stage(random: Random, name: str, level: int, triggers: list[str]) -> Spec:
    chosen = random.sample(triggers, min(len(triggers), random.randint(1, 2)))
    is_any = random.random() < 0.7
    return {
        "name": name, "level": level, "any": chosen if is_any else chosen[:1], "all": [] if is_any else chosen[1:],
        "cooldown": random.choice(COOLDOWN), "corroborate": random.random() < 0.2,
        "reset": (random.choice([0, 1, 1, 3]), random.choice(HOLD)) if random.random() < 0.6 else None,
        "lock": random.choice([None, ("reduce_only", None), ("reduce_only", 30), ("all", 30)]),
        "cancel": random.choice([None, None, "entry", "all"]),
        "closes": [_close(random) for _ in range(random.choice([0, 1, 1, 1, 2]))],
    }  # fmt: skip


def spec_in(random: Random) -> Spec:
    """A policy of up to four triggers and three stages."""
    names = [f"t{i}" for i in range(random.randint(1, 4))]
    levels = sorted(random.choices([1, 2, 3], k=random.randint(1, 3))) if random.random() < 0.25 else None
    levels = levels or list(range(1, random.randint(1, 3) + 1))
    return {
        "triggers": {name: _trigger(random) for name in names},
        "stages": [_stage(random, f"s{i}", level, names) for i, level in enumerate(levels)],
        "mode": "enforce",
    }


def _of_triggers(random: Random, spec: Spec) -> None:
    """Change one trigger."""
    each = spec["triggers"][random.choice(list(spec["triggers"]))]
    match random.randrange(6):
        case 0 | 1:
            each["at"] = _threshold(random, each["signal"])
        case 2:
            each["op"] = ">" if each["op"] == ">=" else ">="
        case 3:
            each["unknown"] = random.choice(["hold", "trip", "warn"])
        case 4:
            each["ticks"], each["confirm"] = random.choice([(0, 0), (0, 3), (0, 10), (1, 0), (3, 0)])
        case _:
            each["signal"] = random.choice([0, 1, 2, 3])
            each["at"] = _threshold(random, each["signal"])


def _of_stages(random: Random, spec: Spec) -> None:
    """Change when one stage fires, or what it leaves behind."""
    each, names = random.choice(spec["stages"]), list(spec["triggers"])
    match random.randrange(7):
        case 0:
            each["cooldown"] = random.choice(COOLDOWN)
        case 1:
            each["reset"] = (random.choice([0, 1, 3]), random.choice(HOLD)) if random.random() < 0.7 else None
        case 2:
            each["any"] = list(dict.fromkeys([*each["any"], random.choice(names)]))
        case 3:
            each["all"] = list(dict.fromkeys([*each["all"], random.choice(names)]))
        case 4:
            each["any"], each["all"] = [], list(dict.fromkeys([*each["any"], *each["all"]]))
        case 5:
            each["corroborate"] = not each["corroborate"]
        case _:
            name = f"n{len(names)}"
            spec["triggers"][name] = _trigger(random)
            each[random.choice(["any", "any", "all"])].append(name)


def _of_actions(random: Random, spec: Spec) -> None:
    """Change what one stage does."""
    each = random.choice(spec["stages"])
    match random.randrange(4):
        case 0:
            each["lock"] = random.choice([None, ("reduce_only", None), ("reduce_only", 60), ("all", 30)])
        case 1:
            each["cancel"] = random.choice([None, "entry", "all"])
        case 2:
            each["closes"] = random.choice([[], [_close(random)]])
        case _:
            for one in each["closes"]:
                new = _close(random)
                key = random.choice(list(new))
                one[key] = random.choice([2, 4, None]) if key == "daily_cap" else new[key]


def _of_set(random: Random, spec: Spec) -> None:
    """Add, remove, exchange or rename stages, or change the mode."""
    stages, names = spec["stages"], list(spec["triggers"])
    match random.randrange(6):
        case 0 if len(stages) > 1:
            stages.remove(random.choice(stages))
        case 1:
            stages.append(_stage(random, f"s{len(stages) + 5}", random.randint(1, 4), names))
        case 2:
            one, other = random.choice(stages), random.choice(stages)
            for key in ("any", "all"):
                one[key], other[key] = other[key], one[key]
        case 3:
            one, other = random.choice(stages), random.choice(stages)
            one["name"], other["name"] = other["name"], one["name"]
        case 4:
            random.shuffle(stages)
        case _:
            spec["mode"] = "observe"


def edited(random: Random, spec: Spec) -> Spec:
    """The policy after one or two edits."""
    made = deepcopy(spec)
    for _ in range(random.choice([1, 1, 1, 2])):
        random.choice([_of_triggers, _of_triggers, _of_stages, _of_stages, _of_actions, _of_actions, _of_set])(
            random, made
        )
    return made


def _condition(each: Spec) -> ConditionNode:
    plain = Compare(each["op"], SignalRead(each["signal"]), Number(each["at"]))
    if each["also"] is None:
        return plain
    how, signal, at = each["also"]
    other = Compare(">=", SignalRead(signal), Number(at))
    if how == "or":
        return AnyOf((plain, other))
    return AllOf((plain, other if how == "and" else Not(other)))


def _trigger_of(name: str, each: Spec) -> Trigger:
    read = {each["signal"], *([] if each["also"] is None else [each["also"][1]])}
    made = trigger(
        name, each["signal"], each["at"], confirm=each["confirm"], ticks=each["ticks"], on_unknown=each["unknown"],
        op=each["op"], rearms=bool(read & BOOK),
    )  # fmt: skip
    return made if each["also"] is None else replace(made, condition=_condition(each), threshold=None)


def _stage_of(each: Spec, names: list[str], condition: int) -> Stage:
    actions: list[Action] = []
    if each["lock"] is not None:
        actions.append(LockTrading(*each["lock"]))
    if each["cancel"] is not None:
        actions.append(CancelOrders(each["cancel"]))
    actions += [
        close(it["side"], it["fraction"], top=it["top"], worst=it["worst"], symbols=it["symbols"],
              daily_cap=it["daily_cap"])
        for it in each["closes"]
    ]  # fmt: skip
    reset = None if each["reset"] is None else AutoReset(condition, each["reset"][1])
    return stage(
        each["name"], each["level"], *(names.index(it) for it in each["any"]),
        all_of=[names.index(it) for it in each["all"]], cooldown=each["cooldown"], reset=reset,
        corroborate=each["corroborate"], attribution=RULE, actions=actions,
    )  # fmt: skip


def compiled(spec: Spec) -> Graph:
    """The policy as a graph."""
    names = list(spec["triggers"])
    triggers = [_trigger_of(name, each) for name, each in spec["triggers"].items()]
    resets: list[Compare] = []
    stages = []
    for each in spec["stages"]:
        stages.append(_stage_of(each, names, len(triggers) + len(resets)))
        if each["reset"] is not None:
            signal = each["reset"][0]
            resets.append(Compare("<", SignalRead(signal), Number(1.0 if signal == 3 else 0.02)))
    return graph(SIGNALS, triggers, stages, reset_when=resets, mode=spec["mode"])
