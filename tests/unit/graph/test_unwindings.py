"""Unwindings compiled: every name resolved, every default known, a built-in one for each reason of a close."""

from __future__ import annotations

from decimal import Decimal
from pathlib import Path
from typing import get_args

import pytest

from killswitch.cli.operate.reasons import MEANINGS, WHOLE_BOOK
from killswitch.graph.actions.close import Close, close_text
from killswitch.graph.compile import compile_loaded, compile_policies
from killswitch.graph.nodes import PolicySet
from killswitch.graph.unwinding import (
    DEFAULT_SPOT,
    OF_CAUSE,
    PLAIN,
    SUGGESTED_ONLY,
    HedgeInstrument,
    HedgeRule,
    ImpactRule,
    SlippageRule,
    SpotRule,
    UnwindingRule,
    unwinding_for,
    unwinding_named,
)
from killswitch.model.decision import Rung
from killswitch.model.words import Cause
from killswitch.policy.loader import load
from killswitch.policy.schema.account import AccountDocument
from killswitch.policy.schema.cross_key_checks import unwinding as breaches

SECOND = 1_000_000
GOLDEN = Path(__file__).parent / "golden"
HEAD = "apiVersion: killswitch.dev/v1\nkind: Unwinding\n"


@pytest.fixture(scope="module")
def compiled() -> PolicySet:
    """The policy set of golden/unwindings.yaml."""
    policies, problems = compile_loaded(load([GOLDEN / "unwindings.yaml"]))
    assert problems == ()
    assert policies is not None
    return policies


def policy_set(folder: Path, *specs: str) -> PolicySet:
    """Unwindings `a`, `b`, … alone."""
    for name, spec in zip("abc", specs, strict=False):
        (folder / f"{name}.yaml").write_text(f"{HEAD}metadata: {{name: {name}}}\nspec: {spec}\n", encoding="utf-8")
    policies, problems = compile_loaded(load([folder]))
    assert problems == ()
    assert policies is not None
    return policies


def test_an_unwinding_compiles_to_its_declared_values(compiled: PolicySet) -> None:
    """Times in microseconds, shares as fractions, money apart from its currency, a group as its symbols."""
    assert compiled.unwindings[0] == UnwindingRule(
        name="careful",
        reasons=("market", "drill"),
        max_orders_per_minute=60,
        pause=2 * SECOND,
        impact=ImpactRule("square_root", Decimal("0.005"), Decimal("0.1"), "ladder_only"),
        slippage=(
            SlippageRule(("BTC/USDT:USDT", "ETH"), Decimal("0.005")),
            SlippageRule(("DOGE", "SHIB"), Decimal("0.03"), "memes"),
            SlippageRule(None, Decimal("0.02")),
        ),
        ladder=(
            Rung("limit_ioc", Decimal(1), 2),
            Rung("limit_ioc", Decimal("2.5"), 3),
            Rung("market", Decimal(1), 2),
            Rung("limit", Decimal(3), 1),
        ),
        hedge=HedgeRule(
            "act", 90 * SECOND, (HedgeInstrument("main", "BTC/USDT:USDT"),), 7200 * SECOND, Decimal(50000), "USDT"
        ),
        spot=SpotRule(("ETH",), ("USDC",), ("BNB",)),
    )


def test_an_empty_unwinding_sends_market_orders_as_fast_as_the_venue_permits(compiled: PolicySet) -> None:
    """No pace, no bound, no ladder; hedges are suggested only; stable coins are kept."""
    plain = compiled.unwindings[1]
    assert (plain.name, plain.max_orders_per_minute, plain.pause, plain.impact) == ("default", None, 0, None)
    assert (plain.reasons, plain.slippage, plain.ladder) == ((), (), ())
    assert plain.hedge == SUGGESTED_ONLY == HedgeRule("suggest", 60 * SECOND, (), 14400 * SECOND, None)
    assert plain.spot == DEFAULT_SPOT == SpotRule(("BTC", "ETH"), ("USDT", "USDC", "FDUSD"))


def test_the_defaults_of_a_hedge_are_a_minute_and_four_hours(tmp_path: Path) -> None:
    """As in the schema and in the built-in suggestion."""
    spec = "{reasons: [drill], hedge: {mode: suggest, with: [{account: main, symbol: X}]}}"
    hedge = policy_set(tmp_path, spec).unwindings[0].hedge
    assert (hedge.after, hedge.window, hedge.max_notional) == (60 * SECOND, 14400 * SECOND, None)


def closes(policies: PolicySet) -> list[Close]:
    return [each for each in policies.graphs[0].stages[0].actions if isinstance(each, Close)]


def test_a_close_uses_the_unwinding_that_it_names_or_the_default(compiled: PolicySet) -> None:
    """`default` is for closes that name none, where there is a document of that name."""
    assert [each.unwinding for each in closes(compiled)] == ["careful", "default"]
    assert unwinding_named("careful", compiled.unwindings) is compiled.unwindings[0]


def test_without_a_default_a_close_that_names_none_has_no_unwinding(tmp_path: Path) -> None:
    """It sends market orders as fast as the venue permits, as before unwindings existed."""
    text = (GOLDEN / "unwindings.yaml").read_text(encoding="utf-8").replace("name: default", "name: other")
    (tmp_path / "policy.yaml").write_text(text, encoding="utf-8")
    policies, _ = compile_policies(load([tmp_path]).documents)
    assert policies is not None
    assert [each.unwinding for each in closes(policies)] == ["careful", None]
    plain = unwinding_named(None, policies.unwindings)
    assert plain == PLAIN == UnwindingRule("plain")
    with pytest.raises(LookupError, match="no unwinding `default`"):
        unwinding_named("default", policies.unwindings)


def test_the_bound_of_a_symbol_is_that_of_the_first_class_that_covers_it(compiled: PolicySet) -> None:
    """By symbol, by base asset, by group, and the class for all others."""
    careful = compiled.unwindings[0]
    asked = [("BTC/USDT:USDT", "BTC"), ("BTC/USD:BTC", "BTC"), ("ETH_USDT", "ETH"), ("SHIB/USDT", "SHIB")]
    assert [careful.bound(*each) for each in asked] == [Decimal(each) for each in ("0.005", "0.02", "0.005", "0.03")]
    only = UnwindingRule("only", slippage=(SlippageRule(("ETH",), Decimal("0.01")),), ladder=(Rung("market"),))
    assert (only.bound("ETH_USDT", "ETH"), only.bound("BTC_USDT", "BTC")) == (Decimal("0.01"), None)


def test_an_operator_close_uses_the_document_that_claims_its_reason(tmp_path: Path) -> None:
    """A reason that no document claims uses the built-in one; a record without a reason counts as operator's."""
    policies = policy_set(tmp_path, "{reasons: [regulatory]}", "{reasons: [drill, operator], pause: 1s}")
    used = {each: unwinding_for(each, policies.unwindings).name for each in get_args(Cause)}
    assert used == {
        "market": "market", "system-failure": "system-failure", "exchange-breach": "exchange-breach",
        "regulatory": "a", "counterparty": "counterparty", "dead-man": "dead-man", "drill": "b", "operator": "b",
    }  # fmt: skip
    assert unwinding_for(None, policies.unwindings).name == "b"
    assert unwinding_for(None, ()) == OF_CAUSE["operator"]


BUILT_IN = {
    "market": ("0.03", None),
    "system-failure": ("0.05", None),
    "exchange-breach": (None, None),
    "regulatory": ("0.01", None),
    "counterparty": ("0.02", None),
    "dead-man": ("0.05", None),
    "drill": ("0.005", 60),
    "operator": ("0.02", None),
}
"""Reason → bound of the price, orders a minute."""


@pytest.mark.parametrize("cause", get_args(Cause))
def test_every_reason_has_an_urgency_of_its_own(cause: Cause) -> None:
    """The bound and the pace of each reason; where there is no bound every order is a market order."""
    rule = OF_CAUSE[cause]
    bound, pace = BUILT_IN[cause]
    assert rule.bound("BTC_USDT", "BTC") == (None if bound is None else Decimal(bound))
    assert rule.max_orders_per_minute == pace
    assert bool(rule.ladder) == (bound is not None)
    assert (rule.pause, rule.impact, rule.reasons, rule.name) == (0, None, (cause,), cause)


@pytest.mark.parametrize("cause", get_args(Cause))
def test_built_in_unwindings_satisfy_the_rules_for_documents(cause: Cause) -> None:
    """An exit at any price, steps that never narrow, limits above zero."""
    rule = OF_CAUSE[cause]
    written = {
        "slippage": [{"at_most": str(each.at_most)} for each in rule.slippage],
        "ladder": [
            {"order": each.order, **({} if each.order == "market" else {"widen": each.widen})} for each in rule.ladder
        ],
    }
    assert list(breaches({"spec": {key: value for key, value in written.items() if value}})) == []
    assert not rule.ladder or "market" in {each.order for each in rule.ladder}
    assert all(bound.at_most * step.widen < 1 for bound in rule.slippage for step in rule.ladder)


def test_stable_coins_are_sold_where_a_stable_coin_may_be_failing() -> None:
    """For the reason counterparty alone; every other reason keeps them."""
    keeping = {cause for cause, rule in OF_CAUSE.items() if rule.spot == DEFAULT_SPOT}
    assert keeping == set(get_args(Cause)) - {"counterparty"}
    assert OF_CAUSE["counterparty"].spot == SpotRule(("BTC", "ETH"), ())


def test_every_reason_has_a_title_and_a_description() -> None:
    """A title, when it applies and how it is carried out; a breach at the venue concerns the whole book."""
    assert set(MEANINGS) == set(OF_CAUSE) == set(get_args(Cause))
    assert set(WHOLE_BOOK) <= set(MEANINGS)


def test_the_description_of_a_close_names_its_unwinding(compiled: PolicySet) -> None:
    """In addition to its other bounds; a close without one has no such text."""
    texts = [close_text(each, ()) for each in closes(compiled)]
    assert texts == [
        "close 50% of long by default, unwinding careful",
        "close 50% of short by default, unwinding default",
    ]


def test_the_share_of_the_limits_that_is_kept_for_closing_is_read() -> None:
    """As written, and half of them where nothing is written."""
    (written,) = [each for each in load([GOLDEN / "unwindings.yaml"]).documents if each.kind == "Account"]
    assert isinstance(written.model, AccountDocument)
    assert written.model.spec.closing_share == Decimal("0.4")
    assert type(written.model.spec).model_fields["closing_share"].default == Decimal("0.5")
