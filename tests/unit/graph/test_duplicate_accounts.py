"""One account under two names is told before anything runs, where the text tells it."""

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


def told(folder: Path, *accounts: str) -> list[Diagnostic]:
    """The errors of these documents."""
    (folder / "set.yaml").write_text("".join(accounts))
    _, diagnostics = compile_loaded(load([folder]))
    return [each for each in diagnostics if each.severity == "error"]


def test_two_armed_documents_with_the_same_references_are_refused(tmp_path: Path) -> None:
    """At the second one's credentials, with both names and the ways out; the order of keys makes no other account."""
    turned = "{secret: 'env:KS_SECRET', key: 'env:KS_KEY'}"
    (found,) = told(tmp_path, account("one"), account("two", turned))
    assert (found.code, found.line, found.column) == ("KS3050", 22, 16)
    assert found.message == "`two` and `one` are one account of one venue, and both are armed"
    assert "write `execution: observe` in one" in found.fix


def test_a_third_one_is_told_too(tmp_path: Path) -> None:
    """Each beyond the first, once."""
    found = told(tmp_path, account("one"), account("two"), account("three"))
    assert [each.code for each in found] == ["KS3050", "KS3050"]


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
def test_what_may_be_another_account_is_not_refused(tmp_path: Path, other: str) -> None:
    """Other references, another system, market, address, currency or option; and a second look that only observes."""
    assert told(tmp_path, account("one"), other) == []


def test_what_makes_no_other_account_is_refused_all_the_same(tmp_path: Path) -> None:
    """A venue's name and a share of its limits are ours alone."""
    (found,) = told(tmp_path, account("one"), account("two", more="  venue: bybit-2\n  closing_share: 40%\n"))
    assert found.code == "KS3050"


def test_coins_at_spot_are_the_same_in_any_currency(tmp_path: Path) -> None:
    """Both documents lead to all that lies there, and would sell it, each for its own currency."""
    one = account("one").replace("market: swap", "market: spot")
    two = account("two").replace("market: swap", "market: spot").replace("currency: USDT", "currency: USDC")
    (found,) = told(tmp_path, one, two)
    assert found.code == "KS3050"


def test_without_credentials_nothing_tells(tmp_path: Path) -> None:
    """Accounts of a paper venue go by their names."""
    paper = [account(name, "{}").replace("ccxt", "paper").replace("  exchange: bybit\n", "") for name in ("one", "two")]
    assert told(tmp_path, *paper) == []
