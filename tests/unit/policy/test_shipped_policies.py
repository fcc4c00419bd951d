"""The shipped policy sets have the thresholds, stages and actions that the risk desk was promised."""

from __future__ import annotations

from decimal import Decimal
from pathlib import Path

import pytest

from killswitch.graph.compile import compile_policies
from killswitch.policy.loader import load
from killswitch.policy.schema.account import AccountDocument
from killswitch.policy.schema.actions import Close
from killswitch.policy.schema.notification.route import RouteDocument, RouteMatch
from killswitch.policy.schema.policy import AutoReset, PolicyDocument, PolicySpec, Stage
from killswitch.policy.schema.trigger import ThresholdTrigger
from killswitch.policy.schema.unwinding import UnwindingDocument

MINUTE = 60_000_000
HOUR = 60 * MINUTE

BREAKERS = ("breakers-six", "capital-breaker")
"""Sets of circuit breakers, which have no stages of their own."""
SETS = (
    "circuit-breaker", "freqtrade-protections", "futures-component-risk", "futures-concentrated", "futures-degross",
    "futures-directional", "futures-drawdown", "one-exchange-directional", "one-exchange-hedged", "several-exchanges",
    "slow-bleed", "slow-bleed-published", "spot-drawdown", "venue-trouble",
)  # fmt: skip
OF_SEVERAL = (
    "freqtrade-protections", "one-exchange-hedged", "several-exchanges", "slow-bleed", "slow-bleed-published",
)  # fmt: skip
"""Sets of several policies, which have tests of their own."""
OF_ONE = tuple(name for name in SETS if name not in OF_SEVERAL)


def spec(repository: Path, name: str) -> PolicySpec:
    """The one policy of a shipped folder."""
    loaded = load([repository / "policies" / name])
    assert loaded.diagnostics == ()
    (document,) = [each for each in loaded.documents if each.kind == "Policy"]
    assert isinstance(document.model, PolicyDocument)
    assert document.name == name
    return document.model.spec


def threshold(policy: PolicySpec, name: str) -> tuple[str, int | None, Decimal, int, str]:
    """(signal, window, at least, confirmation, on unknown) of a threshold trigger."""
    trigger = policy.triggers[name]
    assert isinstance(trigger, ThresholdTrigger)
    assert trigger.at_least is not None
    assert trigger.confirm.ticks == 0
    return trigger.signal, trigger.window, trigger.at_least.value, trigger.confirm.micros, trigger.on_unknown


def closes(stage: Stage) -> Close:
    """What the one close of a stage takes, whatever carries it out."""
    (close,) = [action.close for action in stage.actions if action.close is not None]
    return close.model_copy(update={"unwinding": None})


def reset_of(stage: Stage) -> tuple[str, int] | str:
    """The reset of a stage."""
    if isinstance(stage.reset, AutoReset):
        return stage.reset.auto.when, stage.reset.auto.duration
    return stage.reset


def test_every_shipped_folder_compiles_without_a_warning(repository: Path) -> None:
    """Alone, and all together."""
    folders = sorted(folder.name for folder in (repository / "policies").iterdir() if folder.is_dir())
    assert folders == sorted((*SETS, *BREAKERS))
    for paths in ([repository / "policies"], *([repository / "policies" / name] for name in folders)):
        loaded = load(paths)
        policy_set, diagnostics = compile_policies(loaded.documents)
        assert (loaded.diagnostics, diagnostics) == ((), ())
        assert policy_set is not None


def test_every_shipped_folder_has_a_route_to_the_log_that_is_named_after_it(repository: Path) -> None:
    """Each accepts every message. All sets together have a route each and one target, so nothing is logged twice."""
    policies, _ = compile_policies(load([repository / "policies"]).documents)
    assert policies is not None
    assert sorted(route.name for route in policies.routes) == sorted((*SETS, *BREAKERS))
    assert {target.key for route in policies.routes for target in route.targets} == {"log warning"}
    for name in (*SETS, *BREAKERS):
        documents = load([repository / "policies" / name]).documents
        (route,) = [each.model for each in documents if isinstance(each.model, RouteDocument)]
        assert (route.metadata.name, route.spec.match) == (name, RouteMatch())


@pytest.mark.parametrize("name", (*SETS, *BREAKERS))
def test_every_shipped_folder_has_a_readme(repository: Path, name: str) -> None:
    """A README in the policy's folder, under the policy's name."""
    assert (repository / "policies" / name / "README.md").read_text().startswith(f"# {name}\n")


@pytest.mark.parametrize("name", (*SETS, *BREAKERS))
def test_every_shipped_readme_begins_with_the_book_that_it_is_for_and_what_it_costs(
    repository: Path, name: str
) -> None:
    """In its first paragraph; that of `futures-drawdown` is what was measured, and this its second."""
    paragraphs = (repository / "policies" / name / "README.md").read_text(encoding="utf-8").split("\n\n")
    about = paragraphs[2 if name == "futures-drawdown" else 1]
    assert about.startswith("**For** ") and "**Costs**" in about


@pytest.mark.parametrize("name", (*SETS, *BREAKERS))
def test_every_shipped_folder_is_whole(repository: Path, name: str) -> None:
    """Accounts at the paper venue that observe, a route, scenarios, and an unwinding that every close names.

    All are named after the folder, so that all folders are one set as well, and a copy needs no file of another.
    """
    folder = repository / "policies" / name
    models = [each.model for each in load([folder]).documents]
    kinds = {each.kind for each in load([folder]).documents}
    written = (folder / "policy.yaml").read_text(encoding="utf-8")
    closes_something = "close: {" in written
    assert kinds >= {"Policy", "Account", "NotificationRoute", "Scenario"}
    assert ("Unwinding" in kinds) == closes_something
    assert written.count("close: {") == written.count(f"unwinding: {name}}}")
    accounts = [each for each in models if isinstance(each, AccountDocument)]
    assert {(each.spec.adapter, each.spec.execution) for each in accounts} == {("paper", "observe")}
    assert all(each.metadata.name.startswith(name) for each in accounts)
    for unwinding in [each for each in models if isinstance(each, UnwindingDocument)]:
        orders = [step.order for step in unwinding.spec.ladder]
        assert (unwinding.metadata.name, orders) == (name, ["limit_ioc", "market", "limit"])
        assert unwinding.spec.slippage[-1].symbols is None  # every symbol is bounded


def test_futures_drawdown_watches_two_windows_at_three_levels(repository: Path) -> None:
    """4.5%/7% confirmed for 2m, 7%/10% for 1m, 10%/14% at once; unknown holds."""
    policy = spec(repository, "futures-drawdown")
    assert (policy.scope.each, policy.scope.match.market) == ("account", ("swap", "future"))
    assert policy.max_gap == 10 * MINUTE
    wanted = [
        ("0.045", "0.07", 2 * MINUTE, 30 * MINUTE),
        ("0.07", "0.10", 1 * MINUTE, 90 * MINUTE),
        ("0.10", "0.14", 0, 360 * MINUTE),
    ]
    for stage, (quarter, hour, confirm, cooldown) in zip(policy.stages, wanted, strict=True):
        assert [threshold(policy, trigger) for trigger in stage.any_of] == [
            ("equity.drawdown", 15 * MINUTE, Decimal(quarter), confirm, "hold"),
            ("equity.drawdown", HOUR, Decimal(hour), confirm, "hold"),
        ]
        assert (stage.all_of, stage.cooldown) == ((), cooldown)
    assert [stage.level for stage in policy.stages] == [1, 2, 3]
    assert [stage.corroborate for stage in policy.stages] == [False, False, True]


def test_futures_drawdown_trims_then_closes_a_side_then_everything(repository: Path) -> None:
    """The selection and fraction of each level, and its fallback where no side is to blame."""
    first, second, third = spec(repository, "futures-drawdown").stages
    assert closes(first) == Close(
        side="losing", top=3, fraction=Decimal("0.5"), all_if="position.liquidation_distance <= 0.03"
    )
    assert closes(second) == Close(side="losing", worst=Decimal("0.6"), fraction=Decimal(1))
    assert closes(third) == Close(side="both", fraction=Decimal(1))
    for stage, share in ((first, "0.65"), (second, "0.60")):
        assert stage.attribution is not None
        assert stage.attribution.source_at_least == Decimal(share)
        assert (stage.attribution.if_mixed, stage.attribution.if_unknown) == ("worst_ranked", "worst_ranked")
        assert reset_of(stage) == ('equity.drawdown("1h") < 0.02', HOUR)
    assert reset_of(third) == "manual"


@pytest.mark.parametrize("name", OF_ONE)
def test_every_stage_that_closes_also_locks_and_cancels_entries(repository: Path, name: str) -> None:
    """No stage of a shipped policy sells while bots may still buy."""
    for stage in spec(repository, name).stages:
        kinds = [key for action in stage.actions for key in action.written]
        if "close" in kinds:
            assert kinds[:2] == ["lock_trading", "cancel_orders"]
            assert stage.actions[1].cancel_orders is not None
            assert stage.actions[1].cancel_orders.kind == "entry"


def test_spot_drawdown_sells_a_list_then_all_but_stable_coins(repository: Path) -> None:
    """12% and 20% in an hour, cooldowns of 120 and 480 minutes."""
    policy = spec(repository, "spot-drawdown")
    assert policy.scope.match.market == ("spot",)
    first, second = policy.stages
    assert [threshold(policy, trigger) for trigger in (*first.any_of, *second.any_of)] == [
        ("equity.drawdown", HOUR, Decimal("0.12"), 0, "hold"),
        ("equity.drawdown", HOUR, Decimal("0.20"), 0, "hold"),
    ]
    assert (first.cooldown, second.cooldown) == (120 * MINUTE, 480 * MINUTE)
    assert closes(first).symbols
    assert {"USDT", "USDC"} <= set(closes(second).except_assets)
    assert closes(second).symbols is None


def test_the_circuit_breaker_warns_then_trips_on_initial_capital(repository: Path) -> None:
    """3% only notifies; 5% closes everything until a person resets it."""
    policy = spec(repository, "circuit-breaker")
    warn, trip = policy.stages
    assert [threshold(policy, trigger)[:3] for trigger in (*warn.any_of, *trip.any_of)] == [
        ("equity.loss_from_start", None, Decimal("0.03")),
        ("equity.loss_from_start", None, Decimal("0.05")),
    ]
    assert (warn.actions, bool(warn.notify)) == ((), True)
    assert closes(trip) == Close(side="both", fraction=Decimal(1))
    assert reset_of(trip) == "manual"


LADDER = ["fall-15m-1", "fall-1h-1", "fall-15m-2", "fall-1h-2", "fall-15m-3", "fall-1h-3"]


@pytest.mark.parametrize("name", ["futures-degross", "futures-concentrated", "futures-component-risk"])
def test_policies_that_cut_both_sides_have_the_triggers_and_times_of_futures_drawdown(
    repository: Path, name: str
) -> None:
    """So that they can be compared: only what is closed differs."""
    policy, known = spec(repository, name), spec(repository, "futures-drawdown")
    assert list(policy.triggers) == LADDER
    assert policy.triggers == known.triggers
    assert (policy.scope, policy.max_gap) == (known.scope, known.max_gap)
    for stage, other in zip(policy.stages, known.stages, strict=True):
        assert (stage.level, stage.any_of, stage.cooldown) == (other.level, other.any_of, other.cooldown)
        assert (stage.reset, stage.corroborate) == (other.reset, other.corroborate)


def test_futures_degross_cuts_both_sides_by_half_then_by_80_percent_then_closes_all(repository: Path) -> None:
    """Always every position by the same part, so that the hedge keeps its proportions."""
    taken = [closes(stage) for stage in spec(repository, "futures-degross").stages]
    assert taken == [Close(side="both", fraction=Decimal(part)) for part in ("0.5", "0.8", "1")]


def test_futures_concentrated_caps_every_position_at_an_eighth_then_a_twentieth(repository: Path) -> None:
    """Degross with a cap on a position's share of the gross at firing."""
    taken = [closes(stage) for stage in spec(repository, "futures-concentrated").stages]
    assert taken == [
        Close(side="both", fraction=Decimal("0.5"), share_cap=Decimal("0.125")),
        Close(side="both", fraction=Decimal("0.8"), share_cap=Decimal("0.05")),
        Close(side="both", fraction=Decimal(1)),
    ]


def test_futures_component_risk_cuts_the_gross_that_degross_cuts_from_what_carries_the_risk(repository: Path) -> None:
    """The same fractions as futures-degross, spread by the built-in ranking; so both compare at equal gross."""
    taken = [closes(stage) for stage in spec(repository, "futures-component-risk").stages]
    by_risk = {"side": "both", "rank": "component-risk", "spread": "by_rank"}
    assert taken == [
        Close(**by_risk, fraction=Decimal("0.5")),
        Close(**by_risk, fraction=Decimal("0.8")),
        Close(side="both", fraction=Decimal(1)),
    ]
    assert [each.fraction for each in taken] == [closes(s).fraction for s in spec(repository, "futures-degross").stages]


def test_every_stage_that_acts_names_a_runbook_after_itself(repository: Path) -> None:
    """So that runbooks are found by the stage's name, in any policy."""
    for name in OF_ONE[1:]:
        assert [stage.runbook for stage in spec(repository, name).stages] == [
            stage.name for stage in spec(repository, name).stages
        ]


def test_futures_directional_closes_everything_at_the_first_fall_and_at_a_hard_one_at_once(repository: Path) -> None:
    """4.5%/7% confirmed for 2m, 10%/14% at once; both until a person resets them."""
    policy = spec(repository, "futures-directional")
    wanted = [("0.045", "0.07", 2 * MINUTE, False), ("0.10", "0.14", 0, True)]
    for stage, (quarter, hour, confirm, corroborate) in zip(policy.stages, wanted, strict=True):
        assert [threshold(policy, trigger) for trigger in stage.any_of] == [
            ("equity.drawdown", 15 * MINUTE, Decimal(quarter), confirm, "hold"),
            ("equity.drawdown", HOUR, Decimal(hour), confirm, "hold"),
        ]
        assert closes(stage) == Close(side="both", fraction=Decimal(1))
        assert (reset_of(stage), stage.corroborate) == ("manual", corroborate)


@pytest.mark.parametrize("name", [name for name in SETS if name.startswith("futures-")])
def test_every_futures_policy_has_a_tight_variant(repository: Path, name: str) -> None:
    """3%, 5% and 8% in 15m (the first and the last, where there are two levels), and the hour's in proportion."""
    policy = spec(repository, name)
    quarters = ["0.03", "0.05", "0.08"] if len(policy.stages) == 3 else ["0.03", "0.08"]
    changed = policy.variants["tight"].triggers
    assert set(changed) == set(policy.triggers)
    for stage, quarter in zip(policy.stages, quarters, strict=True):
        fast, slow = stage.any_of
        tight = [changed[trigger].at_least for trigger in (fast, slow)]
        own = [threshold(policy, trigger)[2] for trigger in (fast, slow)]
        assert tight[0] is not None
        assert tight[1] is not None
        assert tight[0].value == Decimal(quarter)
        assert abs(tight[1].value - own[1] * tight[0].value / own[0]) <= Decimal("0.0005")


@pytest.mark.parametrize("name", ["one-exchange-hedged", "several-exchanges"])
def test_the_tight_variant_for_hedged_books_lowers_every_threshold_of_both_policies(
    repository: Path, name: str
) -> None:
    """Selected in one of them alone, the other would still fire late."""
    loaded = load([repository / "policies" / name])
    specs = [each.model.spec for each in loaded.documents if isinstance(each.model, PolicyDocument)]
    assert len(specs) == 2
    for policy in specs:
        tight = policy.variants["tight"].triggers
        assert set(tight) == set(policy.triggers)
        for trigger, changed in tight.items():
            assert changed.at_least is not None
            assert changed.at_least.value < threshold(policy, trigger)[2]
