"""Each answer of docs/cookbook.md is a whole set: it validates, has no finding, and its scenario passes as written."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from click.testing import CliRunner

from killswitch.cli import ksctl
from tests.unit.docs.pages import sections

REPOSITORY = Path(__file__).parents[3]
RECIPES = {
    title: section.yaml
    for title, section in sections((REPOSITORY / "docs" / "cookbook.md").read_text(encoding="utf-8")).items()
    if section.yaml
}
ADDRESSES = {
    "SLACK_URL": "slack://T1JJ3T3L2/A1BRTD4JD/TIiajkdnlazkcOXrIdevi7FQ/#risk",
    "TELEGRAM_URL": "tgram://123456789:abcdefg_hijklmnop/12315544",
    "MAIL_URL": "mailtos://user:password@example.com?to=desk@example.com",
    "PAGERDUTY_URL": "pagerduty://0123456789abcdef0123456789abcdef@api-key",
    "SMS_URL": "twilio://AC0123456789abcdef0123456789abcdef:0123456789abcdef0123456789abcdef@12345678901/12345678902",
}
"""Addresses of the forms on the page; nothing is sent to them."""


def test_the_page_answers_the_questions_of_issue_38() -> None:
    """A day over two venues, an old feed, one position near liquidation, who hears what, one strategy."""
    assert len(RECIPES) == 5
    assert all(len(blocks) == 1 for blocks in RECIPES.values())


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of what Apprise imports, on some versions of Python
@pytest.mark.parametrize("title", RECIPES)
def test_an_answer_is_a_whole_set_whose_scenario_passes(
    title: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`validate --strict`, `lint --strict` and `test` exit 0; the scenario fires, and fires nothing else."""
    for name, address in ADDRESSES.items():
        monkeypatch.setenv(name, address)
    (tmp_path / "recipe.yaml").write_text(RECIPES[title][0], encoding="utf-8")
    for arguments in (["validate", "--strict"], ["lint", "--strict"], ["fmt", "--check"], ["test"]):
        done = CliRunner().invoke(ksctl, [*arguments, str(tmp_path)])
        assert done.exit_code == 0, f"{arguments}\n{done.output}"
    assert "1 scenario: 1 passed" in done.output
    text = RECIPES[title][0]
    assert "kind: Policy\n" in text and "kind: Account\n" in text and "kind: NotificationRoute\n" in text
    assert "fires: " in text
    assert not any(address in text for address in ADDRESSES.values())


@pytest.mark.parametrize("title", RECIPES)
def test_the_scenario_of_an_answer_can_fail(title: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where nothing is expected to be in force at the time of the firing, the scenario fails."""
    for name, address in ADDRESSES.items():
        monkeypatch.setenv(name, address)
    text = re.sub(r"\{at: (\w+), fires: [^}]*\}", r"{at: \1, in_force: none}", RECIPES[title][0])
    (tmp_path / "recipe.yaml").write_text(text, encoding="utf-8")
    done = CliRunner().invoke(ksctl, ["test", str(tmp_path)])
    assert done.exit_code == 1 and "seen    fires " in done.output
