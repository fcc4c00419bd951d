"""`ksctl import killswitch-v6`: stages fire when version 6's do, and what has no equivalent is listed."""

from __future__ import annotations

import json
from collections.abc import Sequence
from decimal import Decimal
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from killswitch.cli import ksctl
from killswitch.graph.compile import compile_policies
from killswitch.graph.nodes import PolicySet
from killswitch.model.decision import Decision
from killswitch.model.snapshot import decode_snapshot
from killswitch.operations.importing.killswitch_v6 import import_v6
from killswitch.operations.importing.report import ImportedFolder, ImportRefusedError
from killswitch.planning.interpreter import Interpreter
from killswitch.policy.loader import load
from killswitch.policy.schema.account import AccountDocument
from tests.oracle.killswitch_v6 import StageFiring, V6Stage, firings
from tests.oracle.naive import RULES, LevelChange, OutsideDomainError, level_changes
from tests.oracle.strategies import DRIFTS, recordings
from tests.oracle.walks import BEGIN, Walk

STAGES = """
  stage_1:
    thresholds: {"15m": 0.045, "1h": 0.070}
    confirm_consecutive: 3
    mode: CLOSE_TOP_RISK_CONTRIBUTORS
    source_mode: AUTO
    source_threshold: 0.65
    top_n: 3
    close_fraction: 0.50
    full_close_if_liq_distance_below_pct: 0.03
    cooldown_min: 30
  stage_2:
    thresholds: {"15m": 0.070, "1h": 0.100}
    confirm_consecutive: 2
    mode: CLOSE_DOMINANT_LOSS_DIRECTION
    source_threshold: 0.60
    cooldown_min: 90
  stage_3:
    thresholds: {"15m": 0.100, "1h": 0.140}
    confirm_consecutive: 1
    mode: CLOSE_ALL_POSITIONS
    cooldown_min: 360
"""
CONFIG = f"""# The stages that the README of version 6 documents, shared by an anchor and merged.
poll_seconds: 60
dry_run: true
stables_keep: [USDT, USDC]
trading_lock_file: ./lock.json
_futures: &futures
  enabled: true
  windows: ["15m", "1h"]
{STAGES}
exchanges:
  binance:
    enabled: true
    api_key_env: BINANCE_API_KEY
    api_secret_env: BINANCE_API_SECRET
    accounts:
      futures:
        <<: *futures
      spot:
        enabled: true
        windows: ["1h"]
        tier_a:
          thresholds: {{"1h": 0.12}}
          mode: SELL_BLACKLIST_ONLY_KEEP_STABLES
          blacklist: [DOGE, SHIB]
          cooldown_min: 120
        tier_b:
          thresholds: {{"1h": 0.20}}
          mode: SELL_ALL_NON_USDT_KEEP_STABLES
          cooldown_min: 480
  bitget:
    enabled: false
"""
ACCOUNT = "binance-futures"


def imported(folder: Path, config: str = CONFIG, env: str | None = None) -> ImportedFolder:
    at, variables = folder / "config.yaml", folder / "bot.env"
    at.write_text(config, encoding="utf-8")
    if env is not None:
        variables.write_text(env, encoding="utf-8")
    return import_v6(at, [variables] if env is not None else [])


def compiled(found: ImportedFolder, folder: Path) -> PolicySet:
    out = folder / "out"
    out.mkdir(exist_ok=True)
    for name in ("policy.yaml", "account.yaml", "route.yaml"):
        (out / name).write_text(found.files[name], encoding="utf-8")
    loaded = load([out])
    policies, problems = compile_policies(loaded.documents)
    assert [*loaded.diagnostics, *problems] == []
    assert policies is not None
    return policies


def listed(found: ImportedFolder, key: str) -> list[tuple[str, int]]:
    return [(each.outcome, each.line) for each in found.settings if each.key == key]


def decisions(policies: PolicySet, lines: Sequence[dict[str, Any]]) -> list[Decision]:
    """What the imported policies decide over a recording of an account of any name."""
    interpreter = Interpreter(policies)
    text = (
        json.dumps(line).replace('"main"', f'"{ACCOUNT}"').replace("account/main", f"account/{ACCOUNT}")
        for line in lines
    )
    return [each for line in text for each in interpreter.tick(decode_snapshot(line)).decisions]


@pytest.fixture(scope="module")
def policies(tmp_path_factory: pytest.TempPathFactory) -> PolicySet:
    folder = tmp_path_factory.mktemp("v6")
    return compiled(imported(folder), folder)


# Behaviour


@settings(max_examples=60, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large], deadline=None)
@given(lines=recordings())
def test_the_documented_stages_decide_as_the_naive_rules_do(policies: PolicySet, lines: list[dict[str, Any]]) -> None:
    """Over falls, outages, transfers and operator resets: levels and times of the naive rules that nothing resets."""
    try:
        expected = level_changes(lines, tuple(replace(each, resets_itself=False) for each in RULES))
    except OutsideDomainError:
        assume(False)
    found = [
        LevelChange(each.as_of, "main", each.level, reset=each.kind == "reset") for each in decisions(policies, lines)
    ]
    assert found == expected


moves = st.lists(st.sampled_from(DRIFTS).map(Decimal), min_size=5, max_size=70)


@pytest.mark.parametrize("window", [15, 60])
@settings(max_examples=25, deadline=None)
@given(steps=moves)
def test_a_stage_fires_first_at_the_poll_at_which_version_6_does(
    tmp_path_factory: pytest.TempPathFactory, window: int, steps: list[Decimal]
) -> None:
    """By its own rules, at a poll a minute and with one window: each level at the same minute."""
    folder = tmp_path_factory.mktemp("v6")
    config = CONFIG.replace('windows: ["15m", "1h"]', f"windows: [{window}]")
    for name, minutes in (("15m", 15), ("1h", 60)):
        config = config.replace(f'"{name}": 0', f'"{minutes}": 0')
    walk = Walk().see()
    for step in [Decimal(0)] * 61 + steps:
        walk.wait(60).move(step).see()
    equity = [Fraction(each["accounts"][0]["equity"]) for each in walk.snapshots]
    spot = config.index("      spot:")
    policies = compiled(imported(folder, config[:spot]), folder)
    fired = decisions(policies, walk.snapshots)
    ours = [StageFiring(round((each.as_of - BEGIN).total_seconds() / 60), each.level) for each in fired]
    thresholds = {15: ("0.045", "0.07", "0.1"), 60: ("0.07", "0.1", "0.14")}[window]
    rules = zip(thresholds, ((3, 30), (2, 90), (1, 360)), strict=True)
    stages = [
        V6Stage(level, {window: Fraction(threshold)}, confirm, cooldown)
        for level, (threshold, (confirm, cooldown)) in enumerate(rules, 1)
    ]
    assert first_of_each(ours) == first_of_each(firings(equity, stages))


def first_of_each(found: list[StageFiring]) -> dict[int, int]:
    """Level → the first minute at which it fired."""
    return {each.level: each.minute for each in reversed(found)}


# What is read


def test_the_modes_become_closes_and_locks(tmp_path: Path) -> None:
    """Top three of the losing side by half, the losing side or the worst 60%, everything; each with its lock."""
    text = imported(tmp_path).files["policy.yaml"]
    one, two, three = text.partition("---\n")[2].partition("---\n")[0].split("    - name: stage-")[1:]
    assert "close: {side: losing, rank: killswitch-v6-1h, top: 3, fraction: 0.5, all_if: 'position.liq" in one
    assert "source_at_least: 0.65" in one
    assert "lock_trading: {mode: reduce_only, for: 30m}" in one
    assert "close: {side: losing, rank: killswitch-v6-1h, worst: 60%, fraction: 100%}" in two
    assert "lock_trading: {mode: reduce_only}\n" in three
    assert "close: {side: both, fraction: 100%}" in three
    assert [text.count(f"cancel_orders: {{kind: {kind}}}") for kind in ("entry", "all")] == [3, 1]


def test_tiers_of_a_spot_account_are_its_stages_one_and_three(tmp_path: Path) -> None:
    """The listed assets first, then all but the stable coins; no locks, which version 6 writes for futures only."""
    text = imported(tmp_path).files["policy.yaml"].partition("name: binance-spot")[2]
    assert "symbols: [DOGE, SHIB], except_assets: [USDT, USDC]" in text
    assert "close: {side: both, fraction: 100%, except_assets: [USDT, USDC]}" in text
    assert [f"level: {level}\n" in text for level in (1, 2, 3)] == [True, False, True]
    assert "lock_trading" not in text


def test_accounts_observe_and_refer_to_the_variables_that_the_configuration_names(tmp_path: Path) -> None:
    """Spot and futures of Binance are two accounts of two exchanges; bitget is not enabled."""
    found = imported(tmp_path)
    compiled(found, tmp_path)
    accounts = [each.model for each in load([tmp_path / "out"]).documents if isinstance(each.model, AccountDocument)]
    assert [(each.metadata.name, each.spec.exchange, each.spec.market, each.spec.execution) for each in accounts] == [
        ("binance-futures", "binanceusdm", "swap", "observe"), ("binance-spot", "binance", "spot", "observe"),
    ]  # fmt: skip
    assert accounts[0].spec.credentials == {"key": "env:BINANCE_API_KEY", "secret": "env:BINANCE_API_SECRET"}
    assert found.variables == ("BINANCE_API_KEY", "BINANCE_API_SECRET")


def test_a_key_that_is_written_in_the_file_is_not_copied(tmp_path: Path) -> None:
    """`$NAME` and words in capitals are names of variables there; anything else is a secret."""
    config = CONFIG.replace("api_key_env: BINANCE_API_KEY", "api_key: hush-1234").replace(
        "api_secret_env: BINANCE_API_SECRET", "api_secret: $SECRET"
    )
    found = imported(tmp_path, config)
    assert found.variables == ("BINANCE_API_KEY", "SECRET")
    assert "1234" not in "".join(found.files.values()) + str(found.settings)


def test_variables_that_no_file_has_are_named(tmp_path: Path) -> None:
    """Only the names of `.env` are read."""
    found = imported(tmp_path, env="export BINANCE_API_KEY='hush-1234'\n")
    assert found.variables == ("BINANCE_API_KEY", "BINANCE_API_SECRET (not in the files of variables)")
    assert "1234" not in "".join(found.files.values()) + str(found.settings)


def test_a_line_behind_an_anchor_is_where_the_setting_is_written(tmp_path: Path) -> None:
    """`top_n` in the shared mapping, which two accounts would use."""
    found = imported(tmp_path, CONFIG.replace("top_n: 3", "top_n: three"))
    key = "exchanges.binance.accounts.futures.stage_1.top_n"
    line = CONFIG.splitlines().index("    top_n: 3") + 1
    assert listed(found, key) == [("no equivalent", line)]


def test_a_merged_key_has_the_line_at_which_it_is_written(tmp_path: Path) -> None:
    """The stages themselves come by `<<`."""
    found = imported(tmp_path)
    line = CONFIG.splitlines().index("  stage_2:") + 1
    assert listed(found, "exchanges.binance.accounts.futures.stage_2") == [("approximated", line)]


def test_source_modes_name_a_side(tmp_path: Path) -> None:
    """A declared side needs no attribution."""
    for mode, side in (("LONG", "long"), ("SHORT", "short"), ("MIXED", "both")):
        text = imported(tmp_path, CONFIG.replace("source_mode: AUTO", f"source_mode: {mode}")).files["policy.yaml"]
        assert f"close: {{side: {side}, rank: killswitch-v6-1h, top: 3" in text
        assert text.count("source_at_least") == 1


def test_telegram_becomes_a_target_by_reference(tmp_path: Path) -> None:
    """Apprise needs one address of token and chat."""
    telegram = "notifications: {telegram: {enabled: true, bot_token_env: A_TOKEN, chat_id_env: A_CHAT}}\n"
    found = imported(tmp_path, telegram + CONFIG)
    assert "apprise: {url: 'env:KILLSWITCH_TELEGRAM_URL'}" in found.files["route.yaml"]
    assert found.variables[-1].startswith("KILLSWITCH_TELEGRAM_URL")


# What is listed


@pytest.mark.parametrize(
    ("old", "new", "key", "why"),
    [
        ("fraction: 0.50", "fraction: 1.5", "stage_1.close_fraction", "close_fraction is above 0"),
        ("source_threshold: 0.65", "source_threshold: 0.5", "stage_1.source_threshold", "else two sides"),
        ("source_mode: AUTO", "source_mode: BOTH", "stage_1.source_mode", "source_mode is one of"),
        ("confirm_consecutive: 3", "confirm_consecutive: x", "stage_1.confirm_consecutive", "whole number"),
        ('"15m": 0.045', '"15m": 4.5', "stage_1.thresholds", "not a fraction between 0 and 1"),
        ("mode: CLOSE_TOP_RISK_CONTRIBUTORS", "mode: PANIC", "stage_1.mode", "the mode is not one of"),
        ("mode: CLOSE_TOP_RISK_CONTRIBUTORS", "mode: [a]", "stage_1.mode", "the mode is not one of"),
        ("          blacklist: [DOGE, SHIB]\n", "", "", "sells everything"),
        ("blacklist: [DOGE, SHIB]", "blacklist: ['a b']", "", "sells everything"),
        ('windows: ["15m", "1h"]', "windows: [5m]", "stage_1.thresholds", "no threshold is of a window"),
    ],
)
def test_a_stage_that_cannot_be_declared_is_listed_and_the_others_are_imported(
    tmp_path: Path, old: str, new: str, key: str, why: str
) -> None:
    """With the key that is to blame."""
    assert old in CONFIG
    found = imported(tmp_path, CONFIG.replace(old, new, 1))
    blamed = [each for each in found.settings if why in each.text]
    assert blamed
    assert blamed[0].outcome == "no equivalent"
    assert blamed[0].key.endswith(key)
    assert "kind: Policy" in found.files["policy.yaml"]
    if "windows" not in old:  # then the account has no stage left, which is a warning
        compiled(found, tmp_path)


def test_a_threshold_of_a_window_that_is_not_measured_never_fires_there_and_is_listed(tmp_path: Path) -> None:
    """Version 6 takes its fall for zero."""
    found = imported(tmp_path, CONFIG.replace('windows: ["15m", "1h"]', 'windows: ["15m"]'))
    text = found.files["policy.yaml"].partition("name: binance-spot")[0]
    assert "window: 60m" not in text
    assert [each.outcome for each in found.settings if each.key.endswith("thresholds.1h")] == ["no equivalent"] * 3


@pytest.mark.parametrize(
    "line", ["state_db: x.sqlite", "spot_routing: {sell_intermediate_delta_only: true}", "unheard_of: 1"]
)
def test_a_setting_without_an_equivalent_is_listed_with_its_line(tmp_path: Path, line: str) -> None:
    """Also one that nobody has heard of; mappings that hold anchors are none."""
    found = imported(tmp_path, f"{line}\n{CONFIG}")
    assert listed(found, line.partition(":")[0]) == [("no equivalent", 1)]
    assert listed(found, "_futures") == []


def test_the_regime_guard_of_version_7_is_listed_with_the_set_that_has_it(tmp_path: Path) -> None:
    """It is no part of version 6."""
    found = imported(
        tmp_path, CONFIG.replace('  windows: ["15m"', '  regime_guard: {enabled: true}\n  windows: ["15m"', 1)
    )
    (guard,) = [each for each in found.settings if each.key.endswith("regime_guard")]
    assert (guard.outcome, "slow-bleed-published" in guard.text) == ("no equivalent", True)


# What is refused


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ("", "config.yaml:1: a configuration is a mapping"),
        ("- a\n", "config.yaml:1: a configuration is a mapping"),
        ("a: [1\n", "not YAML"),
        ("a: 1\na: 2\n", "config.yaml:2: not YAML"),
        ("a: *nowhere\n", "config.yaml:1: not YAML"),
        ("exchanges: 3\n", "config.yaml:1: exchanges is not a mapping"),
        ("exchanges: {}\n", "no account is enabled"),
        (CONFIG.replace("poll_seconds: 60", "poll_seconds: 0"), "poll_seconds is a whole number"),
        (CONFIG.replace("stables_keep: [USDT, USDC]", "stables_keep: 3"), "stables_keep is a list"),
        ("a: &a [x]\nb: &b [*a, *a]\nc: &c [*b, *b]\n", "no account is enabled"),
        ("a: !!python/object/apply:os.system ['true']\n", "no account is enabled"),
        ("[" * 3000, "not YAML"),
        ("a: \x00\n", "not YAML"),
        (CONFIG.replace("    api_secret_env: BINANCE_API_SECRET\n", ""), "binance has no api_secret"),
    ],
)
def test_a_configuration_that_cannot_be_used_is_refused_with_its_place(
    tmp_path: Path, config: str, message: str
) -> None:
    """Nothing is written; tags make no objects, and aliases are not expanded."""
    with pytest.raises(ImportRefusedError) as refused:
        imported(tmp_path, config)
    assert message in str(refused.value)


# The verb


def run(*arguments: object) -> Result:
    return CliRunner().invoke(ksctl, ["import", "killswitch-v6", *map(str, arguments)], standalone_mode=False)


def test_the_verb_writes_a_folder_that_validates_and_exits_3_when_strict(tmp_path: Path) -> None:
    """Version 6's own example has settings without an equivalent; a second import is refused."""
    (tmp_path / "config.yaml").write_text(f"state_db: x\n{CONFIG}", encoding="utf-8")
    assert run(tmp_path / "config.yaml", "--out", tmp_path / "out").return_value == 0
    checked = CliRunner().invoke(ksctl, ["validate", str(tmp_path / "out")], standalone_mode=False)
    assert checked.exception is None
    assert "0 warnings" in checked.output
    assert "is not empty" in str(run(tmp_path / "config.yaml", "--out", tmp_path / "out").exception)
    assert run(tmp_path / "config.yaml", "--out", tmp_path / "strict", "--strict").return_value == 3
