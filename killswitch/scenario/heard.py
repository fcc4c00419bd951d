"""What watchers of dead-man's switches hear in a scenario, and what they conclude: their checks, by that. Pure.

The watcher starts with the scenario and looks every `check`, as `ksctl deadman watch` does.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from msgspec import Struct

from killswitch.engine.silence import Beat, Phase, SwitchState, WayAnswer, check
from killswitch.graph.nodes import SilenceRule
from killswitch.graph.problems import Findings, unknown_name
from killswitch.model.instant import SECOND
from killswitch.policy.schema.scenario import ScenarioHearing
from killswitch.policy.yaml.source_map import Path
from killswitch.render.formats import count_of


class Hearing(Struct, frozen=True):
    """Heartbeats from `start` to `until`, microseconds after the start, on one way (counted from 0) or on all.

    `error`: why the way cannot be read meanwhile, in place of heartbeats. `progress`: whether it changes; None: there
    is none.
    """

    start: int
    until: int
    way: int | None = None
    is_moving: bool | None = None
    error: str | None = None


def hearings(
    written: Mapping[str, Sequence[ScenarioHearing]], silences: Iterable[SilenceRule], found: Findings
) -> dict[str, tuple[Hearing, ...]]:
    """What is heard of each switch; an unknown switch or way, and a span that ends before it begins, is reported."""
    rules = tuple(silences)
    read: dict[str, tuple[Hearing, ...]] = {}
    for name, spans in written.items():
        path: Path = ("spec", "heard", name)
        rule = listened_switch(name, rules, path, found)
        if rule is None:
            continue
        for number, each in enumerate(spans):
            if each.way is not None and each.way > len(rule.ways):
                fix = "write one of them, or leave `way` out for all"
                message = f"the switch `{name}` has {count_of(len(rule.ways), 'way')}"
                found.error("KS7020", (*path, number, "way"), message, fix)
            if each.until < each.start:
                fix = "write the end of the span after its beginning"
                found.error("KS7014", (*path, number, "until"), "the span ends before it begins", fix)
        read[name] = tuple(map(_hearing, spans))
    return read


def _hearing(written: ScenarioHearing) -> Hearing:
    way = None if written.way is None else written.way - 1
    is_moving = None if written.progress is None else written.progress == "moves"
    return Hearing(written.start, written.until, way, is_moving, written.error)


def listened_switch(name: str, silences: Iterable[SilenceRule], path: Path, found: Findings) -> SilenceRule | None:
    """The switch of this name that a watcher listens for; None, which is reported, if there is none."""
    rules = {rule.name: rule for rule in silences}
    if name not in rules:
        message, fix = unknown_name("switch with `at_venue: false`", name, rules)
        found.error("KS7020", path, message, fix)
    return rules.get(name)


class HeardSwitch:
    """The watcher of one switch, from the start of a scenario on."""

    def __init__(self, rule: SilenceRule, hearings: Sequence[Hearing]) -> None:
        self._rule = rule
        self._hearings = hearings
        self._state = SwitchState(since=0.0, floor=0.0)
        self._next = 0
        self._phase: Phase = "pending"

    def phase(self, at: int) -> Phase:
        """The phase after the last check until `at`, in microseconds after the start, which never goes back."""
        while self._next <= at:
            found = check(self._rule, self._state, self._next / SECOND, self._answers(self._next))
            self._state, self._phase = found.state, found.phase
            self._next += self._rule.check
        return self._phase

    def _answers(self, now: int) -> dict[str, WayAnswer]:
        return {way.at: self._answer(number, now) for number, way in enumerate(self._rule.ways)}

    def _answer(self, way: int, now: int) -> WayAnswer:
        mine = [each for each in self._hearings if each.way in (None, way) and each.start <= now]
        error = next((each.error for each in mine if each.error is not None and now <= each.until), None)
        if error is not None:
            return WayAnswer(now / SECOND, error=error)
        beats = self._newest_beats((each for each in mine if each.error is None), now)
        return WayAnswer(now / SECOND, max(beats, key=lambda beat: beat.at, default=None))

    def _newest_beats(self, hearings: Iterable[Hearing], now: int) -> list[Beat]:
        """The newest heartbeat of each span; progress is counted from the scenario's start, so that it never falls."""
        found: list[Beat] = []
        for each in hearings:
            number = (min(now, each.until) - each.start) // self._rule.every
            at = each.start + number * self._rule.every
            moved = {True: at, False: each.start, None: None}[each.is_moving]
            found.append(Beat(at / SECOND, moved))
        return found
