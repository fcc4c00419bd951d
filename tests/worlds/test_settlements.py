"""The gate of settlements: thrown into the random worlds of every family, they turn no right verdict wrong.

54 worlds of each family are known, and what fails among them is in `EXCEPTIONS` with its reason. `make test` takes nine
of each, others for each commit; `make test-venues` takes the rest. A world with settlements is compared with the same
world without them only where its verdict is wrong, because a right verdict leaves nothing to compare.
"""

from __future__ import annotations

from typing import Final

import pytest

from tests.rotation import taking_turns
from tests.worlds.catalogue import FAMILIES
from tests.worlds.judge import Verdict, judge
from tests.worlds.settlements import EXCEPTIONS, is_settled, with_settlements

EACH: Final = 9
TURNS: Final = 6
GATED: Final = [family.name for family in FAMILIES.values() if family.false_allowed < 1.0]
"""Not those whose outcome is a choice: there any close is right."""
TAKEN: Final = [
    each for name in GATED for each in taking_turns(map(str, range(TURNS)), f"settlements in {name}", name)
]  # fmt: skip


def wrong(family: str, seed: int, *, settled: bool = True) -> Verdict | None:
    """The verdict of a world with settlements where it is wrong, else None; None where nothing can be settled."""
    setup = FAMILIES[family].world(seed)
    if not is_settled(setup):
        return None
    verdict = judge(with_settlements(setup, family, seed, settled=settled), family, seed)
    return verdict if verdict.bad else None


@pytest.mark.parametrize(("turn", "name"), TAKEN)
def test_settlements_turn_no_right_verdict_wrong(turn: str, name: str) -> None:
    """A world that is judged rightly without its settlements is judged rightly with them, but for the exceptions."""
    problems = []
    for seed in range(int(turn) * EACH, int(turn) * EACH + EACH):
        found = wrong(name, seed)
        newly = found is not None and wrong(name, seed, settled=False) is None
        if newly and (name, seed) not in EXCEPTIONS:
            problems.append(f"settlements turned this world wrong\n{found}")
        if not newly and (name, seed) in EXCEPTIONS:
            problems.append(f"{name!r}, {seed}: right with its settlements now; take it from the exceptions")
    if problems:
        pytest.fail("\n".join(problems), pytrace=False)


def test_exceptions_are_worlds_of_the_gate() -> None:
    """Each belongs to a family that exists and to a seed that is run, and has a reason."""
    assert all(name in GATED and 0 <= seed < EACH * TURNS and why for (name, seed), why in EXCEPTIONS.items())


@pytest.mark.parametrize("name", FAMILIES)
def test_settlements_change_no_truth(name: str) -> None:
    """The equity and the fall of every account are the same at every instant, with and without them."""
    plain, settled = FAMILIES[name].world(1), with_settlements(FAMILIES[name].world(1), name, 1)
    for setup in (plain, settled):
        setup.world.run([])
    for one, other in zip(plain.world.books.values(), settled.world.books.values(), strict=True):
        assert other.equity(100.0) == pytest.approx(one.equity(100.0), rel=1e-9, abs=1e-6)
    for (one, _), (other, _) in zip(plain.world.truths, settled.world.truths, strict=True):
        for t in range(0, int(plain.world.seconds), 5):
            assert other.fall(t) == pytest.approx(one.fall(t), abs=1e-7)
