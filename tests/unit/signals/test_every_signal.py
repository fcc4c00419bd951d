"""Every signal of the catalogue in a policy: when it fires, when it must not, and when it is unknown.

The scenarios are those of the modules beside this one, in `SCENARIOS`. A signal without one is a failure here.
"""

from __future__ import annotations

from importlib import import_module
from pathlib import Path

import pytest

from killswitch.signals.catalogue import BY_NAME, TRIGGER_SIGNALS
from tests.worlds.firings import Scenario, firings, unknowns

MODULES = sorted(each.stem for each in Path(__file__).parent.glob("test_*.py") if each.stem != Path(__file__).stem)
SCENARIOS: dict[str, Scenario] = {
    name: scenario
    for module in MODULES
    for name, scenario in getattr(import_module(f"tests.unit.signals.{module}"), "SCENARIOS", {}).items()
}
NEVER = "never"


def signal_of(name: str) -> str:
    """The signal that a scenario is about."""
    return name.split(":", maxsplit=1)[0]


@pytest.mark.parametrize("signal", TRIGGER_SIGNALS)
def test_a_signal_has_a_scenario(signal: str) -> None:
    """In which it fires, must not fire, and is unknown unless its declaration states that it never is."""
    mine = [scenario for name, scenario in SCENARIOS.items() if signal_of(name) == signal]
    assert mine, f"{signal} needs a Scenario in SCENARIOS of its module in tests/unit/signals"
    spec = BY_NAME[signal]
    is_never_unknown = spec.unknown == NEVER and spec.partly_known == NEVER
    assert is_never_unknown or any(scenario.unknown for scenario in mine)


@pytest.mark.parametrize("name", SCENARIOS)
def test_it_fires(name: str) -> None:
    """When it is to and not before, and its trigger reads the signal that it is about."""
    one = SCENARIOS[name]
    policies = one.policies
    assert any(read.name == signal_of(name) for graph in policies.graphs for read in graph.signals)
    assert firings(policies, one.fires)[:1] == [one.at or one.fires[-1].as_of]


@pytest.mark.parametrize("name", SCENARIOS)
def test_it_gives_no_false_alarm(name: str) -> None:
    """With what looks like it and is not."""
    one = SCENARIOS[name]
    assert firings(one.policies, one.calm) == []


@pytest.mark.parametrize("name", [name for name, scenario in SCENARIOS.items() if scenario.unknown is not None])
def test_it_is_unknown_and_says_so(name: str) -> None:
    """With `hold` nothing fires, and the trigger is reported."""
    one = SCENARIOS[name]
    assert one.unknown is not None
    policies = one.policies
    assert firings(policies, one.unknown) == []
    assert unknowns(policies, one.unknown)
