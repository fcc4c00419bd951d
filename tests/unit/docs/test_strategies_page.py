"""docs/strategies.md: its documents compile, and it names the codes and the files that exist."""

from __future__ import annotations

import re
from pathlib import Path

from killswitch.policy.diagnostics.pages import pages
from tests.backtests import written


def test_the_documents_of_the_page_compile(repository: Path) -> None:
    """A reader can copy them: two strategies that are distinguished, and a policy for one of them."""
    text = (repository / "docs" / "strategies.md").read_text(encoding="utf-8")
    (block,) = re.findall(r"```yaml\n(.*?)```", text, re.DOTALL)
    found = written(block)
    assert [rule.name for rule in found.strategies] == ["carry", "grid"]
    assert [rule.name for rule in found.graphs[0].scope.strategies] == ["grid"]
    assert set(re.findall(r"KS\d{4}", text)) <= pages().keys()
