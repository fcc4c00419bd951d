"""`ksctl import freqtrade`: what is read, what is listed, and what is refused. No secret leaves the configuration."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from killswitch.accounts.plug_ins import load_plug_ins
from killswitch.cli import ksctl
from killswitch.operations.importing.freqtrade import import_freqtrade
from killswitch.operations.importing.freqtrade_config import read_config, without_comments
from killswitch.operations.importing.report import ImportedFolder, ImportRefusedError
from killswitch.policy.loader import load
from killswitch.policy.schema.account import AccountDocument

CONFIG = """{
    // one line, "with": a key in it
    "stake_currency": "USDT", "dry_run": true,
    "trading_mode": "futures",
    /* several
       lines */
    "exchange": {"name": "bybit", "key": "KEY-1234", "secret": "SECRET-1234", "pair_whitelist": ["BTC/USDT:USDT"],},
\t"telegram": {"enabled": true, "token": "TOKEN-1234", "chat_id": "CHAT-1234"},
    "stoploss": -0.1, "url": "http://x//y",
}
"""
STRATEGY = """class Mine(IStrategy):
    timeframe = "5m"
    stoploss = -0.25
    protections = [{"method": "CooldownPeriod", "stop_duration_candles": 2}]
"""


def write(folder: Path, **files: str) -> list[Path]:
    found = []
    for name, text in files.items():
        path = folder / name.replace("__", ".")
        path.write_text(text, encoding="utf-8")
        found.append(path)
    return found


def imported(
    folder: Path, config: str = CONFIG, strategy: str | None = STRATEGY, env: str | None = None
) -> ImportedFolder:
    (at,) = write(folder, config__json=config)
    (strategy_at,) = write(folder, strategy__py=strategy) if strategy is not None else (None,)
    return import_freqtrade([at], strategy_at, write(folder, bot__env=env) if env is not None else [], load_plug_ins())


def listed(found: ImportedFolder, key: str) -> list[tuple[str, str, int]]:
    return [(each.outcome, Path(each.file).name, each.line) for each in found.settings if each.key == key]


def run(*arguments: object) -> Result:
    return CliRunner().invoke(ksctl, ["import", "freqtrade", *map(str, arguments)], standalone_mode=False)


# What is read


def test_comments_and_trailing_commas_are_left_out_and_lines_keep_their_numbers() -> None:
    """A `//` within a text is no comment, and a comma within one is no trailing comma."""
    bare = without_comments(CONFIG)
    assert bare.count("\n") == CONFIG.count("\n")
    assert json.loads(bare)["url"] == "http://x//y"
    assert json.loads(without_comments('{"a": "b,}", "c": [1, 2, ], }')) == {"a": "b,}", "c": [1, 2]}


def test_the_account_observes_and_refers_to_its_credentials(tmp_path: Path) -> None:
    """Bybit's futures as a swap account; key and secret by reference."""
    found = imported(tmp_path)
    out = tmp_path / "out"
    out.mkdir()
    (out / "account.yaml").write_text(found.files["account.yaml"], encoding="utf-8")
    (account,) = [each.model for each in load([out]).documents if isinstance(each.model, AccountDocument)]
    assert (account.spec.adapter, account.spec.exchange, account.spec.market) == ("ccxt", "bybit", "swap")
    assert (account.spec.currency, account.spec.execution) == ("USDT", "observe")
    assert account.spec.credentials == {
        "key": "env:FREQTRADE__EXCHANGE__KEY", "secret": "env:FREQTRADE__EXCHANGE__SECRET",
    }  # fmt: skip


def test_a_bot_that_trades_is_imported_as_one_that_observes_and_the_report_names_it(tmp_path: Path) -> None:
    """Nothing is armed by an import."""
    found = imported(tmp_path, CONFIG.replace('"dry_run": true', '"dry_run": false'))
    assert "execution: observe" in found.files["account.yaml"]
    assert listed(found, "dry_run") == [("approximated", "config.json", 3)]


def test_a_dry_run_is_an_account_that_observes(tmp_path: Path) -> None:
    """The same document, exactly."""
    found = imported(tmp_path)
    (dry,) = [each for each in found.settings if each.key == "dry_run"]
    assert (dry.outcome, dry.text) == ("imported", "execution: observe")


def test_a_blacklist_of_pairs_and_bases_is_banned_at_the_gate(tmp_path: Path) -> None:
    """`BNB/.*` is every pair of BNB; any other pattern keeps the list from being imported, and is listed."""
    config = CONFIG.replace('"pair_whitelist"', '"pair_blacklist": ["BNB/.*", "DOGE/USDT:USDT"], "pair_whitelist"')
    found = imported(tmp_path, config)
    assert "banned: [BNB, DOGE/USDT:USDT]" in found.files["limits.yaml"]
    assert listed(found, "exchange.pair_blacklist") == [("approximated", "config.json", 7)]
    pattern = imported(tmp_path, config.replace("BNB/.*", ".*(UP|DOWN)/USDT"))
    assert "limits.yaml" not in pattern.files
    assert listed(pattern, "exchange.pair_blacklist") == [("no equivalent", "config.json", 7)]


def test_no_secret_is_in_the_folder_or_in_the_report(tmp_path: Path) -> None:
    """Neither from the configuration nor from a file of variables."""
    write(tmp_path, config__json=CONFIG, s__py=STRATEGY, bot__env="FREQTRADE__EXCHANGE__PASSWORD=PASS-1234\n")
    for form in ("text", "json"):
        done = run(
            tmp_path / "config.json", "--strategy", tmp_path / "s.py", "--env-file", tmp_path / "bot.env", "--out",
            tmp_path / form, "--output", form,
        )  # fmt: skip
        assert done.exception is None
        written = "".join(each.read_text(encoding="utf-8") for each in (tmp_path / form).iterdir())
        assert "-1234" not in written + done.output


def test_the_configuration_overrides_the_strategy(tmp_path: Path) -> None:
    """A stop of 10% and not of 25%: the line is that of the configuration."""
    found = imported(tmp_path)
    assert listed(found, "stoploss") == [("approximated", "config.json", 9)]
    assert "at_least: 10%" in found.files["policy.yaml"]
    own = imported(tmp_path, CONFIG.replace('"stoploss": -0.1, ', ""))
    assert listed(own, "stoploss") == [("approximated", "strategy.py", 3)]
    assert "at_least: 25%" in own.files["policy.yaml"]


def test_a_stop_of_the_stake_is_divided_by_the_leverage_or_is_of_the_margin(tmp_path: Path) -> None:
    """−10% at 5× is 2% of the price; a leverage that is code leaves the venue's margin."""
    callback = "    def leverage(self, pair, **kwargs):\n        return {}\n"
    five = imported(tmp_path, strategy=STRATEGY + callback.format("5")).files["policy.yaml"]
    assert "against: entry, at_least: 2%," in five
    code = imported(tmp_path, strategy=STRATEGY + callback.format("self.now()")).files["policy.yaml"]
    assert "against: margin, at_least: 10%," in code


def test_the_naming_file_wins_over_the_files_that_it_names_and_a_later_configuration_over_both(tmp_path: Path) -> None:
    """`add_config_files` is merged under the file that names it, relative to that file, nested too."""
    (tmp_path / "more").mkdir()
    write(tmp_path / "more", a__json='{"x": 1, "y": {"p": 1, "q": 1}, "add_config_files": ["b.json"]}',
          b__json='{"x": 0, "z": 0, "y": {"r": 0}}')  # fmt: skip
    write(
        tmp_path, first__json='{"y": {"p": 2}, "add_config_files": ["more/a.json"]}', second__json='{"z": {"deep": 3}}'
    )
    found = read_config([tmp_path / "first.json", tmp_path / "second.json"], [])
    assert {keys: setting.value for keys, setting in found.items()} == {
        ("x",): 1, ("y", "p"): 2, ("y", "q"): 1, ("y", "r"): 0, ("z", "deep"): 3,
    }  # fmt: skip


def test_variables_override_every_file_and_others_are_not_read(tmp_path: Path) -> None:
    """In freqtrade's form, quoted or exported; the name of the exchange comes from there."""
    env = "# of the bot\nexport FREQTRADE__EXCHANGE__NAME='okx'\nPATH=/bin\nFREQTRADE__STOPLOSS=-0.05\n"
    found = imported(tmp_path, env=env)
    assert "exchange: okx" in found.files["account.yaml"]
    assert listed(found, "exchange.name") == [("imported", "bot.env", 2)]
    assert "at_least: 5%" in found.files["policy.yaml"]
    assert not [each for each in found.settings if each.key == "path"]


def test_okx_gets_its_passphrase_and_binance_spot_no_futures(tmp_path: Path) -> None:
    """The names of credentials are those of the venue; spot and futures are two exchanges at Binance."""
    okx = imported(tmp_path, CONFIG.replace("bybit", "okx")).files["account.yaml"]
    assert "passphrase: 'env:FREQTRADE__EXCHANGE__PASSWORD'" in okx
    spot = imported(tmp_path, CONFIG.replace("bybit", "binance").replace("futures", "spot")).files["account.yaml"]
    assert "exchange: binance\n  market: spot" in spot
    assert "exchange: binanceusdm\n  market: swap" in imported(tmp_path, CONFIG.replace("bybit", "binance")).files[
        "account.yaml"
    ]  # fmt: skip


# What is listed


def test_without_a_strategy_the_report_names_the_protections_that_it_cannot_see(tmp_path: Path) -> None:
    """They are in the class since the end of 2024; in the configuration they are an error there."""
    found = imported(tmp_path, CONFIG.replace('"url"', '"protections": [{"method": "Hodl"}], "url"'), strategy=None)
    assert ("no equivalent", "config.json", 9) in listed(found, "protections")
    assert any("--strategy" in each.text for each in found.settings)


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("entry_pricing", 9), ("freqai", 9), ("pairlists", 9), ("max_open_trades", 9), ("unheard_of", 9),
    ],
)  # fmt: skip
def test_a_setting_without_an_equivalent_is_listed_with_file_and_line(tmp_path: Path, text: str, line: int) -> None:
    """Also one that nobody has heard of."""
    found = imported(tmp_path, CONFIG.replace('"url": "http://x//y"', f'"{text}": {{"a": 1}}'))
    assert listed(found, text) == [("no equivalent", "config.json", line)]


def test_every_setting_of_the_configuration_is_in_the_report(tmp_path: Path) -> None:
    """By its own name or by that of its group."""
    found = imported(tmp_path)
    keys = {each.key for each in found.settings}
    for written in read_config([tmp_path / "config.json"], []):
        assert keys & {".".join(written[:depth]) for depth in range(1, len(written) + 1)}, written


def test_code_of_the_strategy_is_listed(tmp_path: Path) -> None:
    """Callbacks, an attribute that is computed, and a base class that is not read."""
    code = STRATEGY.replace("IStrategy", "Base, IStrategy").replace("-0.25", "compute()")
    code += "    def custom_stoploss(self):\n        return 1\n"
    found = imported(tmp_path, CONFIG.replace('"stoploss": -0.1, ', ""), code)
    assert listed(found, "class") == [("no equivalent", "strategy.py", 1)]
    assert listed(found, "stoploss") == [("no equivalent", "strategy.py", 3)]
    assert listed(found, "custom_stoploss") == [("no equivalent", "strategy.py", 5)]


def test_protections_made_by_code_are_listed_with_the_line(tmp_path: Path) -> None:
    """A property with more than its return statement, and one that returns no list."""
    for body in ("        p = []\n        return p\n", "        return self.make()\n"):
        code = f"class S(IStrategy):\n    @property\n    def protections(self):\n{body}"
        found = imported(tmp_path, strategy=code)
        assert [each[0] for each in listed(found, "protections")] == ["no equivalent"]


# What is refused


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ("", "config.json:1: a configuration is one JSON object"),
        ("[]", "config.json:1: a configuration is one JSON object"),
        ('{"a": 1,\n "b": }x', "config.json:2: not JSON"),
        ('{"a": 1, "a": 2}', "config.json:1: not JSON"),
        ('{"stake_currency": "USDT"}', "exchange.name is missing"),
        (CONFIG.replace('"bybit"', '"mtgox"'), "no venue is called mtgox"),
        (CONFIG.replace('"bybit"', '"bit get; rm"'), "exchange.name is not a name"),
        (CONFIG.replace('"USDT"', "3"), "stake_currency is not a name"),
        (CONFIG.replace("futures", "margin"), "trading_mode is spot or futures"),
        (CONFIG.replace('"bybit"', '"alpaca"'), "alpaca"),
        ('{"add_config_files": ["config.json"]}', "names itself"),
        ('{"add_config_files": "x.json"}', "is a list of file names"),
        ('{"add_config_files": ["nowhere.json"]}', "cannot be read"),
        ('{"a": ' * 500 + "1" + "}" * 500, "config.json:1: not JSON"),
    ],
)
def test_a_configuration_that_cannot_be_used_is_refused_with_its_place(
    tmp_path: Path, config: str, message: str
) -> None:
    """Nothing is written, and the exit code is 1."""
    with pytest.raises(ImportRefusedError) as refused:
        imported(tmp_path, config)
    assert message in str(refused.value)


@pytest.mark.parametrize(
    ("strategy", "message"),
    [
        ("class AwesomeStrategy(IStrategy)\n    timeframe = '5m'\n", "strategy.py:1: not Python: expected ':'"),
        ("x = 1\n", "its classes are: none"),
        ("class A(IStrategy): pass\nclass B(IStrategy): pass\n", "its classes are: A, B"),
        ("class A(Other): pass\n", "exactly one class that derives from IStrategy"),
        ("(" * 5000, "strategy.py:1"),
        ("a\x00b", "strategy.py:1"),
    ],
)
def test_a_strategy_that_cannot_be_read_is_refused_with_its_place(tmp_path: Path, strategy: str, message: str) -> None:
    """The example of the documentation lacks a colon."""
    with pytest.raises(ImportRefusedError) as refused:
        imported(tmp_path, strategy=strategy)
    assert message in str(refused.value)


def test_of_several_strategies_the_configured_one_is_read(tmp_path: Path) -> None:
    """`strategy` of the configuration is its name."""
    config = CONFIG.replace('"url"', '"strategy": "Mine", "url"')
    assert (
        "cooldown-period"
        in imported(tmp_path, config, STRATEGY + "class Other(IStrategy): pass\n").files["policy.yaml"]
    )


# The verb


def test_the_folder_validates_and_is_never_written_over(tmp_path: Path) -> None:
    """The second import into the same folder is refused, and so is a folder with a file of somebody."""
    config = CONFIG.replace('"pair_whitelist"', '"pair_blacklist": ["BNB/.*"], "pair_whitelist"')
    write(tmp_path, config__json=config, s__py=STRATEGY)
    arguments = (tmp_path / "config.json", "--strategy", tmp_path / "s.py", "--out", tmp_path / "out")
    assert run(*arguments).return_value == 0
    before = {each.name: each.read_bytes() for each in (tmp_path / "out").iterdir()}
    checked = CliRunner().invoke(ksctl, ["validate", str(tmp_path / "out")], standalone_mode=False)
    assert checked.exception is None, checked.output
    assert "ok: 5 documents" in checked.output
    again = run(*arguments)
    assert "is not empty" in str(again.exception)
    assert {each.name: each.read_bytes() for each in (tmp_path / "out").iterdir()} == before


def test_strict_exits_3_while_a_setting_has_no_equivalent(tmp_path: Path) -> None:
    """The folder is written all the same; without `--strict` the exit code is 0."""
    write(tmp_path, config__json=CONFIG, s__py=STRATEGY)
    common = (tmp_path / "config.json", "--strategy", tmp_path / "s.py", "--out")
    assert run(*common, tmp_path / "a").return_value == 0
    assert run(*common, tmp_path / "b", "--strict").return_value == 3
    bare = '{"stake_currency": "USDT", "trading_mode": "futures", "exchange": {"name": "bybit"}, "dry_run": true}'
    write(tmp_path, config__json=bare)
    assert run(*common, tmp_path / "c", "--strict").return_value == 0


def test_json_has_every_setting_with_its_place(tmp_path: Path) -> None:
    """One record for each, and the files that were written."""
    write(tmp_path, config__json=CONFIG, s__py=STRATEGY)
    done = run(tmp_path / "config.json", "--strategy", tmp_path / "s.py", "--out", tmp_path / "out", "--output", "json")
    answer = json.loads(done.output)
    assert answer["written"] is True
    assert answer["files"] == sorted(each.name for each in (tmp_path / "out").iterdir())
    assert {each["outcome"] for each in answer["settings"]} == {"imported", "approximated", "no equivalent"}
    assert all(each["line"] >= 1 and each["file"] for each in answer["settings"])
