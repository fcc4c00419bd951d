"""A signal is one declaration, complete or refused; docs/add-a-signal.md describes how to write one."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from killswitch.graph.compile import compile_loaded
from killswitch.graph.nodes import SignalRef
from killswitch.lab.price_matrix import PriceMatrix
from killswitch.policy.loader import load
from killswitch.signals import exposure_signals
from killswitch.signals.arguments import Argument, argument_text
from killswitch.signals.catalogue import ARGUMENTS, BY_NAME, CATALOGUE, catalogue
from killswitch.signals.declaration import (
    NO_LOOK_AHEAD,
    PARTS,
    UNCHANGED,
    BoolSignal,
    PositionSignal,
    ScopeSignal,
    SignalSpec,
    TextSignal,
)
from killswitch.signals.signal_values import bounds_ahead
from tests.backtests import book, market, run, written
from tests.unit.docs.pages import sections
from tests.worlds import position
from tests.worlds.signals import held, values_of

INF = float("inf")
KINDS: tuple[type[SignalSpec], ...] = (ScopeSignal, BoolSignal, TextSignal, PositionSignal)
NAME = "exposure.net_share"


def parts_of(spec: SignalSpec) -> dict[str, Any]:
    return {part: getattr(spec, part) for part in spec.parts()}


def one_of(kind: type[SignalSpec]) -> SignalSpec:
    return next(spec for spec in CATALOGUE if type(spec) is kind)


@pytest.mark.parametrize(("kind", "part"), [(kind, part) for kind in KINDS for part in kind.parts()])
@pytest.mark.parametrize(
    "left_out", [lambda parts, part: parts.pop(part), lambda parts, part: parts.update({part: None})]
)
def test_a_signal_that_lacks_a_part_cannot_be_imported(
    kind: type[SignalSpec], part: str, left_out: Callable[[dict[str, Any], str], None]
) -> None:
    """The error names the signal and the part, with its meaning; None does not count as a part."""
    parts = parts_of(one_of(kind))
    name = "without a name" if part == "name" else parts["name"]
    left_out(parts, part)
    with pytest.raises(TypeError) as refusal:
        kind(**parts)
    assert str(refusal.value) == f"the signal {name} lacks `{part}` ({PARTS[part]})"


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"meaning": ""}, "lacks `meaning`"),
        ({"name": "net_share"}, "its `name` is not SUBJECT.QUANTITY"),
        ({"name": "position.net_share"}, "its `name` is not SUBJECT.QUANTITY"),
        ({"range": (1.0, 0.0)}, r"its `range` \(1.0, 0.0\) is empty"),
        ({"range": (float("nan"), 1.0)}, "its `range` .* is empty"),
        ({"level": "position"}, "is a ScopeSignal, which has no part level"),
        ({"values": ("LONG",)}, "Unexpected keyword argument 'values'"),
    ],
)
def test_a_signal_with_invalid_parts_cannot_be_imported(change: dict[str, Any], words: str) -> None:
    """Empty words, a name that no policy could write, or of another level; an empty range; a foreign part."""
    with pytest.raises(TypeError, match=words):
        ScopeSignal(**parts_of(BY_NAME["exposure.gross"]) | change)


@pytest.mark.parametrize(
    ("parts", "words"),
    [
        ({"kind": "word"}, "`words` belong to the kinds `word` and `reference`"),
        ({"kind": "name", "words": ("utc_day",)}, "`words` belong to the kinds `word` and `reference`"),
        ({"kind": "word", "words": ("a",), "document": "Session"}, "`document` belongs to the kind `reference`"),
        ({"kind": "reference", "words": ("a",)}, "`document` belongs to the kind `reference`"),
    ],
)
def test_an_argument_of_words_or_documents_that_it_does_not_take_cannot_be_imported(
    parts: dict[str, Any], words: str
) -> None:
    """A name has no words; a reference may have words besides the names of documents."""
    rest = {"key": "it", "meaning": "It.", "example": "a"}
    with pytest.raises(TypeError, match=words):
        Argument(**rest, **parts)
    assert Argument(**rest, kind="reference", document="Session", words=("utc_day",)).words == ("utc_day",)


def test_the_range_of_money_is_written_as_its_key_takes_it() -> None:
    """No power of ten, which no policy writes."""
    capital = ARGUMENTS["capital"][0]
    assert argument_text(capital).endswith("At least 0.00000001. Such as 10000 USDT.")


def test_no_two_signals_have_one_name() -> None:
    """A policy that uses the name could mean either."""
    assert catalogue(CATALOGUE[:2], CATALOGUE[2:]) == CATALOGUE
    with pytest.raises(TypeError, match=r"equity\.value is declared twice"):
        catalogue(CATALOGUE, CATALOGUE[:1])


def test_only_its_declaration_names_a_signal(repository: Path) -> None:
    """Nor does any code test how a name begins; examples in messages do not count as names."""
    subjects = {spec.name.partition(".")[0] for spec in CATALOGUE}
    written = re.compile(rf"""["'](?:(?:{"|".join(subjects)})\.|{"|".join(map(re.escape, BY_NAME))})["']""")
    program = repository / "killswitch"
    modules = [path for path in program.rglob("*.py") if not path.is_relative_to(program / "signals")]
    assert len(modules) > 100
    found = [f"{path.name}: {name}" for path in modules for name in written.findall(path.read_text(encoding="utf-8"))]
    assert found == []


@pytest.fixture(scope="module")
def page(repository: Path) -> str:
    return (repository / "docs" / "add-a-signal.md").read_text(encoding="utf-8")


def test_the_page_has_every_kind_and_the_error_every_part(page: str) -> None:
    """Each part that the page names exists, and each part of each kind has its text for the error."""
    (kinds,) = sections(page)[""].tables
    assert [row["kind"] for row in kinds] == [f"`{kind.__name__}`" for kind in KINDS]
    explained = re.findall(r"^- (.+?): ", page, re.MULTILINE)
    assert {name.strip("`") for names in explained for name in names.split(", ")} <= PARTS.keys()
    assert {part for kind in KINDS for part in kind.parts()} == PARTS.keys()


@pytest.fixture
def net_share(page: str, monkeypatch: pytest.MonkeyPatch) -> SignalSpec:
    """The page's signal, declared where the page says, and in the catalogue."""
    (block,) = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    names = dict(vars(exposure_signals))
    exec(compile(block, "docs/add-a-signal.md", "exec"), names)
    spec = names["NET_SHARE"]
    assert isinstance(spec, SignalSpec)
    monkeypatch.setitem(BY_NAME, NAME, spec)
    return spec


@pytest.mark.usefixtures("net_share")
def test_the_signal_of_the_page_is_read() -> None:
    """60 and 10 long, 30 short: 40 of 100. Of nothing 0; unknown without a price."""
    assert values_of(NAME, held("60", "30", "10")) == (pytest.approx(0.4), pytest.approx(0.4))
    assert values_of(NAME, []) == (0.0, 0.0)
    assert values_of(NAME, None) == (-INF, INF)
    assert values_of(NAME, [*held("60"), position("X", "long", "0")]) == (-INF, INF)


@pytest.mark.usefixtures("net_share")
@pytest.mark.parametrize(
    ("trigger", "codes"),
    [
        (f"signal: {NAME}, at_least: 0.4", set()),
        (f"when: '{NAME} >= 0.4'", set()),
        (f"signal: {NAME}, at_least: -0.4", {"KS3004"}),
        (f"signal: {NAME}, above: 1", {"KS5003", "KS3021"}),
        (f"when: '{NAME} >= 0'", {"KS5002"}),
        (f"signal: {NAME}, window: 15m, above: 0.4", {"KS3003"}),
        (f"signal: {NAME}, above: 10 USDT", {"KS3004"}),
    ],
)
def test_the_signal_of_the_page_is_compiled_by_its_unit_and_range(
    tmp_path: Path, trigger: str, codes: set[str]
) -> None:
    """No table of the compiler needs an entry: what can never hold, or always does, follows from its range."""
    (tmp_path / "policy.yaml").write_text(POLICY.replace("TRIGGER", trigger), encoding="utf-8")
    _, problems = compile_loaded(load([tmp_path]))
    assert {problem.code for problem in problems} == codes


def test_a_backtest_looks_ahead_as_the_signal_declares(net_share: SignalSpec, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ticked at every bar, or fast-forwarded: as the last tick left it, or by a function of the equity path."""
    ticked, left, computed = (
        ticked_bars(),
        *(ticks_with(net_share, each, monkeypatch) for each in (UNCHANGED, constant_share)),
    )
    assert net_share.look_ahead is NO_LOOK_AHEAD  # type: ignore[attr-defined]  # a ScopeSignal's part
    assert ticked == len(CALM)
    assert max(left, computed) < len(CALM) / 2


POLICY = """
apiVersion: killswitch.dev/v1
kind: Policy
metadata: {name: example}
spec:
  mode: enforce
  scope: {each: account, match: {currency: USDT}}
  max_gap: 10m
  triggers: {heaped: {TRIGGER, on_unknown: hold}}
  stages:
    - name: all
      level: 1
      any: [heaped]
      cooldown: 1h
      reset: manual
      actions: [{close: {side: both, fraction: 100%}}]
"""
CALM: PriceMatrix = market(A=[100 + (place % 2) / 100 for place in range(200)])


def ticked_bars() -> int:
    """The number of bars of a calm market that a backtest ticks."""
    told: list[int] = []
    policies = written(POLICY.replace("TRIGGER", f"signal: {NAME}, below: 0.5"))
    run(policies, CALM, book({"A": 10_000}), on_bars=told.append)
    assert sum(told) == len(CALM)
    return len(told)


def constant_share(path: Any) -> Any:
    """The share of a book of one position."""
    return np.ones_like(path.equity), np.ones_like(path.equity)


def ticks_with(spec: SignalSpec, look_ahead: object, monkeypatch: pytest.MonkeyPatch) -> int:
    monkeypatch.setitem(BY_NAME, NAME, ScopeSignal(**parts_of(spec) | {"look_ahead": look_ahead}))
    return ticked_bars()


@pytest.mark.parametrize("name", ["attribution.source", "position.loss"])
def test_texts_and_positions_have_no_look_ahead(name: str) -> None:
    """Their kinds have no part for it."""
    path: Any = None
    assert bounds_ahead(SignalRef(name), path) is NO_LOOK_AHEAD
