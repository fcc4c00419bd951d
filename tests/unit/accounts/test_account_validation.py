"""`ksctl validate` reports which parts of an account its venue does not have, at the key, before anything is made."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Sequence
from importlib import metadata
from pathlib import Path
from types import SimpleNamespace

import pytest

from killswitch.accounts.plug_ins import AdapterError, make_adapter
from killswitch.accounts.validation import account_misfits
from killswitch.model.fitting import Misfit, WrittenAccount
from killswitch.model.venue import AccountSpec
from killswitch.policy.diagnostics.diagnostic import Diagnostic
from killswitch.policy.loader import load

HEAD = "apiVersion: killswitch.dev/v1\nkind: Account\nmetadata: {name: main}\nspec:\n"
"""Four lines: the first key of the spec is on the fifth."""


def findings(folder: Path, *keys: str) -> tuple[Diagnostic, ...]:
    """The findings about an account with these keys, one a line."""
    text = HEAD + "".join(f"  {key}\n" for key in (*keys, "execution: live"))
    (folder / "account.yaml").write_text(text)
    return account_misfits(load([folder]))


def places(found: Sequence[Diagnostic]) -> list[tuple[str, int, int, str]]:
    return [(each.severity, each.line, each.column, each.message) for each in found]


def test_a_market_is_reported_with_the_exchange_that_has_it(tmp_path: Path) -> None:
    """Binance's swaps are exchanges of their own."""
    (found,) = findings(tmp_path, "adapter: ccxt", "exchange: binance", "market: swap", "currency: USDT")
    assert (found.code, found.severity, found.line, found.column) == ("KS3051", "error", 7, 11)
    assert found.message == "binance has no market swap here; it has spot, margin"
    assert found.fix == (
        "write `exchange: binanceusdm` or `exchange: binancecoinm`, where swap is, "
        "or `market: spot` or `market: margin`"
    )


def test_all_findings_are_reported_in_one_pass(tmp_path: Path) -> None:
    """Each at its own key."""
    found = findings(
        tmp_path, "adapter: ccxt", "exchange: bitget", "market: spot", "currency: BTC",
        "credentials: {key: 'env:A', sceret: 'env:B'}",
    )  # fmt: skip
    names = "credentials of bitget are key, secret, passphrase"
    assert places(found) == [
        ("error", 7, 11, "bitget has no market spot here; it has swap, future"),
        ("error", 8, 13, "bitget has no accounts in BTC here"),
        ("error", 9, 31, f"{names}; unknown: sceret"),
        ("error", 9, 16, f"{names}; missing: passphrase"),
    ]
    assert found[1].fix == "write USDT or USDC"


def test_a_missing_credential_is_reported_at_the_others(tmp_path: Path) -> None:
    """OKX wants three."""
    (found,) = findings(
        tmp_path, "adapter: ccxt", "exchange: okx", "market: swap", "currency: USDT",
        "credentials: {key: 'env:A', secret: 'env:B'}",
    )  # fmt: skip
    assert (found.line, found.column) == (9, 16)
    assert found.message == "credentials of okx are key, secret, passphrase; missing: passphrase"


@pytest.mark.parametrize(
    ("exchange", "key", "message", "fix"),
    [
        ("binanceusdm", "sandbox", "binanceusdm has no sandbox; it has demo",
         "write `demo: true` in its place, or take `sandbox` out"),
        ("okx", "demo", "okx has no demo; it has sandbox", "write `sandbox: true` in its place, or take `demo` out"),
        ("mexc", "sandbox", "mexc has no sandbox; it has neither sandbox nor demo", "take `sandbox` out"),
    ],
)  # fmt: skip
def test_an_unknown_system_is_reported(tmp_path: Path, exchange: str, key: str, message: str, fix: str) -> None:
    """With the one that exists, where there is one."""
    (found,) = findings(
        tmp_path, "adapter: ccxt", f"exchange: {exchange}", "market: swap", "currency: USDT", f"{key}: true"
    )
    assert (found.line, found.column, found.message, found.fix) == (9, len(key) + 5, message, fix)


def test_an_unknown_exchange_is_reported_with_the_nearest(tmp_path: Path) -> None:
    """Names are ccxt's."""
    pytest.importorskip("ccxt")
    (found,) = findings(tmp_path, "adapter: ccxt", "exchange: binanceusdtm", "market: swap", "currency: USDT")
    assert (found.line, found.column) == (6, 13)
    assert found.message == "ccxt knows no exchange called `binanceusdtm`"
    assert found.fix.startswith("did you mean `binanceusdm`?")


def test_a_missing_key_is_reported_at_its_parent(tmp_path: Path) -> None:
    """No exchange: at `spec`."""
    (found,) = findings(tmp_path, "adapter: ccxt", "market: swap", "currency: USDT")
    assert (found.line, found.column) == (4, 1)
    assert found.message == "the adapter ccxt needs an exchange, by its name in ccxt"


def test_two_systems_at_once_are_reported_whatever_the_adapter(tmp_path: Path) -> None:
    """Once, and neither is checked."""
    for adapter in ("paper", "ccxt"):
        (found,) = findings(
            tmp_path, f"adapter: {adapter}", "exchange: mexc", "market: swap", "currency: USDT", "sandbox: true",
            "demo: true",
        )  # fmt: skip
        assert (found.line, found.column, found.message) == (10, 9, "sandbox and demo are two systems of a venue")


def test_alpaca_findings_differ_from_those_of_an_exchange(tmp_path: Path) -> None:
    """Its own text, at its own keys."""
    found = findings(
        tmp_path, "adapter: alpaca", "exchange: nyse", "market: swap", "currency: USD", "demo: true",
        "credentials: {key: 'env:A'}",
    )  # fmt: skip
    assert places(found) == [
        ("error", 6, 3, "the adapter alpaca has no exchange nyse: it has one venue"),
        ("error", 7, 11, "Alpaca has no market swap here; it has equity, spot"),
        ("error", 9, 9, "Alpaca has no demo; it has sandbox, its paper accounts"),
        ("error", 10, 16, "credentials of Alpaca are key, secret; missing: secret"),
    ]


@pytest.mark.parametrize(
    "keys",
    [
        ("adapter: ccxt", "exchange: binanceusdm", "market: swap", "currency: USDT", "demo: true"),
        ("adapter: ccxt", "exchange: okx", "market: spot", "currency: EUR", "sandbox: true",
         "credentials: {secret: 'env:B', passphrase: 'env:C', key: 'env:A'}"),
        ("adapter: alpaca", "market: equity", "currency: USD", "sandbox: true",
         "credentials: {key: 'env:A', secret: 'env:B'}"),
        ("adapter: paper", "market: equity", "currency: USD"),
    ],
)  # fmt: skip
def test_a_valid_account_has_no_findings(tmp_path: Path, keys: tuple[str, ...]) -> None:
    """Nor has one that no plug-in can check: it may run where the adapter is."""
    assert findings(tmp_path, *keys) == ()


def test_an_unreadable_document_is_not_checked(tmp_path: Path) -> None:
    """A filler for a value means nothing: no market is checked here, whichever the venue has."""
    for exchange in ("mexc", "binance"):
        assert findings(tmp_path, "adapter: ccxt", f"exchange: {exchange}", "market: spto", "currency: USDT") == ()


@pytest.mark.parametrize("family", [SimpleNamespace(), "broken", "gone"])
def test_a_plug_in_that_cannot_check_reports_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, family: object
) -> None:
    """One without the check, one that fails at it, and one that cannot be loaded."""

    class Broken:
        def misfits(self, account: WrittenAccount) -> Sequence[Misfit]:
            raise KeyError(account.market)

    def entry() -> object:
        if family == "gone":
            raise ImportError("its client is not installed")
        return Broken() if family == "broken" else family

    monkeypatch.setattr(metadata, "entry_points", lambda group: [SimpleNamespace(name="ccxt", load=entry)])
    assert findings(tmp_path, "adapter: ccxt", "exchange: mexc", "market: spot", "currency: USDT") == ()


def test_the_verb_fails_with_the_finding(tmp_path: Path) -> None:
    """Exit 1, in the one object, beside the compiler's errors; a set that could not start has no digest."""
    findings(tmp_path, "adapter: ccxt", "exchange: mexc", "market: spot", "currency: USDT")
    done = _ksctl("validate", str(tmp_path), "--output", "json")
    answer = json.loads(done.stdout)
    assert (done.returncode, done.stderr) == (1, "")
    assert (answer["valid"], answer["complete"], answer["digest"]) == (False, True, None)
    assert [each["code"] for each in answer["diagnostics"]] == ["KS5010", "KS3051"]
    assert "1 error, 1 warning; `ksctl explain CODE` says more" in _ksctl("validate", str(tmp_path)).stdout
    assert _ksctl("explain", "KS3051").stdout.startswith("KS3051: the account does not fit its venue\n")


def test_validate_imports_no_client(tmp_path: Path, repository: Path) -> None:
    """With an account or without: no client of a venue, and no message types."""
    (tmp_path / "account.yaml").write_text(
        HEAD + "  adapter: ccxt\n  exchange: bybit\n  market: swap\n  currency: USDT\n  execution: live\n"
    )
    heavy = "('ccxt', 'aiohttp', 'killswitch.model.decision', 'killswitch_ccxt.dialect')"
    program = (
        "import sys, click; from killswitch.cli import main; sys.argv = ['ksctl', 'validate', sys.argv[1]]\n"
        "try: main()\nexcept SystemExit: pass\n"
        f"print([name for name in {heavy} if name in sys.modules])"
    )
    loaded = [
        subprocess.run([sys.executable, "-c", program, str(path)], capture_output=True, text=True, check=True)
        .stdout.splitlines()[-1]
        for path in (repository / "policies", tmp_path)
    ]  # fmt: skip
    assert loaded == ["[]", "[]"]


def _ksctl(*args: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", "from killswitch.cli import main; main()", *args]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_an_adapter_that_is_not_installed_is_reported_with_what_to_install(tmp_path: Path) -> None:
    """From the installed entry points; a misspelt name gets the suggestion."""
    (found,) = findings(tmp_path, "adapter: cxct", "market: swap", "currency: USDT")
    assert places([found]) == [
        ("error", 5, 12, "no adapter is called `cxct`; installed: alpaca, ccxt, paper"),
    ]
    assert (found.code, found.fix) == (
        "KS3060",
        "did you mean `ccxt`? Else install the package that offers it (entry point `cxct` in the group "
        "killswitch.adapters), or correct the name",
    )


def test_a_missing_library_is_a_warning_in_validation(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Policies may be checked on a machine that never runs them; where they are run, the adapter refuses to be made."""
    monkeypatch.setattr("killswitch_ccxt.validation.find_spec", lambda _name: None)
    credentials = "credentials: {key: 'env:A', secret: 'env:B', passphrase: 'env:C'}"
    found = findings(tmp_path, "adapter: ccxt", "exchange: okx", "market: swap", "currency: USD", credentials)
    assert [(each.code, each.severity, each.message, each.fix) for each in found if each.severity == "warning"] == [
        ("KS5096", "warning", "ccxt is not installed", "pip install '.[ccxt]' in a clone of Killswitch")
    ]
    spec = AccountSpec("main", "ccxt", "swap", "USD", None, {}, {}, exchange="okx")
    with pytest.raises(AdapterError, match="ccxt is not installed"):
        make_adapter(spec)


STOP = (
    "---\napiVersion: killswitch.dev/v1\nkind: CatastropheStop\nmetadata: {name: far}\n"
    "spec: {accounts: [main], distance: 20%, from: entry, trigger: TRIGGER, band: 10%, if_refused: none}\n"
)
TIMER = (
    "---\napiVersion: killswitch.dev/v1\nkind: DeadMansSwitch\nmetadata: {name: timer}\n"
    "spec: {accounts: [main], at_venue: true, timeout: 60s, refresh: 20s}\n"
)


@pytest.mark.parametrize(
    ("exchange", "trigger", "timer", "codes"),
    [
        ("binanceusdm", "mark", "", []),
        ("binanceusdm", "index", "", ["KS3059"]),  # its conditional orders follow the mark or the last price
        ("okx", "index", "", []),
        ("bybit", "last", "", []),
        ("binancecoinm", "mark", "", ["KS3059"]),  # its interface of conditional orders was not tried
        ("mexc", "mark", "", ["KS3059"]),  # its conditional orders have no id of ours
        ("krakenfutures", "mark", TIMER, ["KS3052"]),  # its timer cancels stops
        ("okx", "mark", TIMER, ["KS3052"]),  # whether its timer spares stops is unknown
    ],
)
def test_a_catastrophe_stop_that_the_venue_cannot_hold_is_an_error(
    exchange: str, trigger: str, timer: str, codes: list[str], tmp_path: Path
) -> None:
    """By the adapter's own description of the venue, and of its timer where the account has one."""
    keys = {"okx": "key: 'env:A', secret: 'env:B', passphrase: 'env:C'"}.get(exchange, "key: 'env:A', secret: 'env:B'")
    account = (
        f"  adapter: ccxt\n  exchange: {exchange}\n  market: swap\n  currency: USDT\n  execution: live\n"
        f"  credentials: {{{keys}}}\n"
    )
    (tmp_path / "set.yaml").write_text(HEAD + account + STOP.replace("TRIGGER", trigger) + timer)
    found = [each for each in account_misfits(load([tmp_path])) if each.code in ("KS3052", "KS3059")]
    assert [each.code for each in found] == codes
    assert all((each.severity, each.line, each.column) == ("error", 15, 8) for each in found)
