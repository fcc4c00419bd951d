"""Duplicate accounts: one account under two names is refused by validation, where the documents show it."""

from __future__ import annotations

from pathlib import Path

import pytest

from killswitch.graph.compile import compile_loaded
from killswitch.policy.diagnostics.diagnostic import Diagnostic
from killswitch.policy.loader import load

KEYS = "{key: 'env:KS_KEY', secret: 'env:KS_SECRET'}"


def account(name: str, keys: str = KEYS, execution: str = "live", more: str = "") -> str:
    return (
        f"---\napiVersion: killswitch.dev/v1\nkind: Account\nmetadata: {{name: {name}}}\nspec:\n"
        f"  adapter: ccxt\n  exchange: bybit\n  market: swap\n  currency: USDT\n  execution: {execution}\n"
        f"  credentials: {keys}\n{more}"
    )


def errors_of(folder: Path, *accounts: str) -> list[Diagnostic]:
    """The errors of these documents."""
    (folder / "set.yaml").write_text("".join(accounts))
    _, diagnostics = compile_loaded(load([folder]))
    return [each for each in diagnostics if each.severity == "error"]


def test_two_armed_documents_with_the_same_references_are_refused(tmp_path: Path) -> None:
    """At the second one's credentials, with both names and the ways out; the order of keys makes no difference."""
    reordered = "{secret: 'env:KS_SECRET', key: 'env:KS_KEY'}"
    (error,) = errors_of(tmp_path, account("one"), account("two", reordered))
    assert (error.code, error.line, error.column) == ("KS3050", 22, 16)
    assert error.message == "`two` and `one` are one account of one venue, and both are armed"
    assert "write `execution: observe` in one" in error.fix


def test_a_third_document_is_refused_too(tmp_path: Path) -> None:
    """One error for each beyond the first."""
    error = errors_of(tmp_path, account("one"), account("two"), account("three"))
    assert [each.code for each in error] == ["KS3050", "KS3050"]


@pytest.mark.parametrize(
    "other",
    [
        account("two", "{key: 'env:KS_OTHER', secret: 'env:KS_SECRET'}"),
        account("two", execution="observe"),
        account("two", more="  sandbox: true\n"),
        account("two", more="  endpoint: 'http://127.0.0.1:1'\n"),
        account("two").replace("market: swap", "market: spot"),
        account("two").replace("exchange: bybit", "exchange: okx"),
        account("two").replace("currency: USDT", "currency: USDC"),
        account("two", more="  options: {subaccount: second}\n"),
    ],
)
def test_documents_that_may_be_different_accounts_are_not_refused(tmp_path: Path, other: str) -> None:
    """Other references, another system, market, address, currency or option; and a second one that only observes."""
    assert errors_of(tmp_path, account("one"), other) == []


def test_keys_that_do_not_identify_an_account_do_not_distinguish_it(tmp_path: Path) -> None:
    """The venue's name and the share of its limits are our own settings."""
    (error,) = errors_of(tmp_path, account("one"), account("two", more="  venue: bybit-2\n  closing_share: 40%\n"))
    assert error.code == "KS3050"


def test_a_spot_account_is_the_same_in_any_currency(tmp_path: Path) -> None:
    """Both documents lead to the same coins, and would sell them, each for its own currency."""
    one = account("one").replace("market: swap", "market: spot")
    two = account("two").replace("market: swap", "market: spot").replace("currency: USDT", "currency: USDC")
    (error,) = errors_of(tmp_path, one, two)
    assert error.code == "KS3050"


def test_accounts_without_credentials_are_not_compared(tmp_path: Path) -> None:
    """Accounts of a paper venue are identified by their names."""
    paper = [account(name, "{}").replace("ccxt", "paper").replace("  exchange: bybit\n", "") for name in ("one", "two")]
    assert errors_of(tmp_path, *paper) == []
