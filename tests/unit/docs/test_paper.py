"""The documents on the page of the paper venue are valid and have the described effect."""

from __future__ import annotations

import re
from pathlib import Path

from ruamel.yaml import YAML

from killswitch.market.terms import read_terms
from killswitch.model.venue import AccountSpec, Cost, RateLimit
from killswitch.policy.loader import load
from killswitch.policy.schema.account import AccountDocument
from killswitch_paper import adapter

PAGE = Path(__file__).parents[3] / "docs/paper.md"


def _blocks() -> list[str]:
    return re.findall(r"```yaml\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)


def test_the_terms_of_the_page_are_valid() -> None:
    """Every key of the page is accepted, and each differs from the default of the venue."""
    terms = read_terms(YAML(typ="safe", pure=True).load(_blocks()[0]))
    assert [limit.name for limit in terms.traits.limits] == ["orders-10s", "weight"]
    assert (terms.traits.batch, terms.traits.whole_book) == (5, True)
    assert terms.checks_client_ids and terms.resting_exits_block and terms.shows_liquidity
    assert (terms.fill_lag, terms.flow_lag) == (10, 15)


def test_the_account_of_the_page_opens_an_adapter_with_its_options(tmp_path: Path) -> None:
    """The document compiles, and its options are those of the adapter."""
    (tmp_path / "account.yaml").write_text(_blocks()[1], encoding="utf-8")
    loaded = load([tmp_path])
    assert not loaded.diagnostics
    (document,) = [one.model for one in loaded.documents if isinstance(one.model, AccountDocument)]
    spec = document.spec
    made = adapter(AccountSpec("main", spec.adapter, spec.market, spec.currency, spec.endpoint, dict(spec.options), {}))
    traits = made.traits
    assert made.batches is not None
    assert (made.batches.most, traits.limits) == (5, (RateLimit("orders-10s", 300, 10.0),))
    assert traits.costs == tuple(Cost(call, "orders-10s", each=1) for call in ("submit", "submit_batch"))
