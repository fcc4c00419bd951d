"""One account of one venue is armed once, whatever its documents are called."""

from __future__ import annotations

from pathlib import Path

import pytest

from killswitch.accounts.opening import open_accounts
from killswitch.accounts.plug_ins import AdapterError
from killswitch.policy.loader import load
from killswitch.policy.schema.account import AccountDocument


def _documents(
    folder: Path, exchange: str = "bybit", market: str = "swap", second: str = "USDT", more: str = "",
    **executions: str,
) -> list[AccountDocument]:  # fmt: skip
    """`second`: the currency of the document named two. `more` credentials, as they are written."""
    for name, execution in executions.items():
        (folder / f"{name}.yaml").write_text(
            f"apiVersion: killswitch.dev/v1\nkind: Account\nmetadata: {{name: {name}}}\n"
            f"spec: {{adapter: ccxt, exchange: {exchange}, market: {market}, "
            f"currency: {second if name == 'two' else 'USDT'}, execution: {execution}, "
            f"credentials: {{key: 'env:KS_{name.upper()}', secret: 'env:KS_SECRET'{more}}}}}\n",
            encoding="utf-8",
        )
    loaded = load([folder])
    return [it.model for it in loaded.documents if isinstance(it.model, AccountDocument)]


@pytest.fixture(autouse=True)
def keys(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two names of one key, and another key."""
    for name, value in {"KS_ONE": "the-key", "KS_TWO": "the-key", "KS_OTHER": "another", "KS_SECRET": "s3cret"}.items():
        monkeypatch.setenv(name, value)


def test_two_live_documents_with_one_key_are_refused(tmp_path: Path) -> None:
    """Also where the references differ: the key is compared. Each would close the same book."""
    with pytest.raises(AdapterError, match="accounts one and two are one account of one venue") as refused:
        open_accounts(_documents(tmp_path, one="live", two="live"), live=True)
    assert "the-key" not in str(refused.value)


@pytest.mark.parametrize("executions", [{"one": "live", "two": "observe"}, {"one": "live", "other": "live"}])
def test_an_observing_duplicate_and_another_key_are_allowed(tmp_path: Path, executions: dict[str, str]) -> None:
    """One of them only observes, or they are two accounts."""
    assert len(open_accounts(_documents(tmp_path, **executions), live=True)) == 2


def test_another_settlement_currency_is_another_account(tmp_path: Path) -> None:
    """MEXC keeps a wallet and positions in USDT, and others in USDC, under one key."""
    assert len(open_accounts(_documents(tmp_path, "mexc", second="USDC", one="live", two="live"), live=True)) == 2


@pytest.mark.parametrize("exchange", ["bybit", "okx", "binanceusdm", "krakenfutures"])
def test_a_second_document_is_refused_where_one_account_holds_all_currencies(tmp_path: Path, exchange: str) -> None:
    """A unified account shows every position to both, whatever it settles in."""
    more = ", passphrase: 'env:KS_SECRET'" if exchange == "okx" else ""
    documents = _documents(tmp_path, exchange, second="USDC", more=more, one="live", two="live")
    with pytest.raises(AdapterError, match="accounts one and two are one account"):
        open_accounts(documents, live=True)


def test_spot_balances_are_the_same_account_in_any_currency(tmp_path: Path) -> None:
    """Both would sell the whole balance."""
    with pytest.raises(AdapterError, match="accounts one and two are one account"):
        open_accounts(_documents(tmp_path, market="spot", second="USDC", one="live", two="live"), live=True)


def test_unarmed_documents_are_not_refused(tmp_path: Path) -> None:
    """Without --live nobody closes anything."""
    assert len(open_accounts(_documents(tmp_path, one="live", two="live"), live=False)) == 2
