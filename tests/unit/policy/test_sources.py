"""Source places: where values were written, and which part of the source may be shown."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from ruamel.yaml import YAML

from killswitch.policy.diagnostics.diagnostic import as_json
from killswitch.policy.loader import load
from killswitch.policy.yaml.masked_text import MaskedText
from killswitch.policy.yaml.parser import parse
from killswitch.policy.yaml.source_map import SourceMap
from tests.shown import diagnostics_text


def source_of(text: str) -> SourceMap:
    """The source map of the first document of a valid text."""
    notes: list[object] = []
    roots = parse(text, notes.append)
    assert notes == []
    return SourceMap(MaskedText("policy.yaml", text), roots[0].node)


def test_values_keys_and_items_have_places() -> None:
    """A path leads to the value or to its key; lines and columns count from 1."""
    source = source_of("spec:\n  stages:\n    - name: stop\n      any: [a, b]\n")
    place = source.place(("spec", "stages", 0, "any", 1))
    assert (place.file, place.line, place.column, place.text) == ("policy.yaml", 4, 16, "      any: [a, b]")
    key = source.place(("spec", "stages", 0, "any"), key=True)
    assert (key.line, key.column) == (4, 7)


def test_a_missing_value_is_placed_at_its_parent() -> None:
    """A missing key is reported at the key of its mapping; of a whole document at its first key."""
    source = source_of("# why\nspec:\n  mode: enforce\n")
    assert (source.place(("spec", "scope", "match")).line, source.place(("spec", "scope")).column) == (2, 1)
    assert (source.place(("metadata", "name")).line, source.place(("metadata",)).column) == (2, 1)


@pytest.mark.parametrize(
    ("written", "offset", "line", "column"),
    [
        ("when: a < b\n", 4, 1, 11),
        ("when: 'a < b'\n", 4, 1, 12),
        ("when: 'it''s < b'\n", 5, 1, 14),
        ('when: "a\\t< b"\n', 2, 1, 11),
        ('when: "\\u0041 < b"\n', 2, 1, 15),
        ("when: |\n  a &&\n  b < c\n", 5, 3, 3),
        ("when: |\n  a &&\n    b < c\n", 7, 3, 5),
        ("when: >-\n  a &&\n  b < c\n", 5, 3, 3),
        ("when: 'a &&\n  b < c'\n", 5, 2, 3),
        ("when: a &&\n  b < c\n", 7, 2, 5),
        ("when: a < b\n", 99, 1, 11),
    ],
    ids=["plain", "single", "doubled quote", "escape", "long escape", "literal", "literal, indented", "folded",
         "single over lines", "plain over lines", "past the end"],
)  # fmt: skip
def test_a_character_of_a_text_is_found_where_it_was_written(written: str, offset: int, line: int, column: int) -> None:
    """Whatever the quoting, the escapes and the folding."""
    place = source_of(written).inside(("when",), offset)
    assert (place.line, place.column) == (line, column)


@given(
    words=st.lists(st.text(alphabet="abc'<&. \"", min_size=1, max_size=8).map(str.strip), min_size=1, max_size=6),
    style=st.sampled_from(["'", '"', "|", ">"]),
)
def test_every_letter_has_its_exact_place(words: list[str], style: str) -> None:
    """The place of each letter of a text is exact, in every style of writing it."""
    value = " ".join(word for word in words if word) or "a"
    if style == "'":
        text = "when: '" + value.replace("'", "''") + "'\n"
    elif style == '"':
        text = 'when: "' + value.replace('"', '\\"') + '"\n'
    else:
        text = f"when: {style}-\n  " + value + "\n"
    assert YAML(typ="safe", pure=True).load(text)["when"] == value
    source = source_of(text)
    for offset, letter in enumerate(value):
        place = source.inside(("when",), offset)
        shown = text.splitlines()[place.line - 1][place.column - 1]
        assert shown == letter or (shown == "\\" and letter == '"')


SECRETS = """apiVersion: killswitch.dev/v1
kind: Account
metadata: {name: main, labels: {Desk: 7}}
spec:
  adapter: paper
  market: swap
  currency: USDT
  execution: live
  endpoint: https://desk:hunter2@example.com/
  api_secret: hunter2
  credentials:
    key: hunter2
    key: "hunter2"
    more: [hunter2]
    folded: >
      hunter2
    fine: env:KEY
  options: {passphrase: hunter2, api-key: 'hunter2'}
---
apiVersion: killswitch.dev/v1
kind: Account
spec: {credentials: {a: hunter2, b: hunter2}, colour: hunter}
"""


def test_no_secret_is_ever_shown(tmp_path: Path) -> None:
    """Not in a message, a fix or a source line, as text or as JSON; columns stay exact."""
    file = tmp_path / "account.yaml"
    file.write_text(SECRETS)
    found = load([file]).diagnostics
    output = diagnostics_text(found) + repr(as_json(found))
    assert "hunter2" not in output
    literals = {each.line for each in found if each.code == "KS2106"}
    assert literals == {9, 12, 14, 15, 22}
    lines = SECRETS.splitlines()
    assert all(len(each.source_line) == len(lines[each.line - 1]) for each in found)


def test_a_secret_in_a_file_that_is_not_yaml_is_not_shown(tmp_path: Path) -> None:
    """The line that breaks the syntax may be the one with the secret."""
    file = tmp_path / "account.yaml"
    file.write_text("spec:\n  credentials:\n    key: hunter2: x\n  mode: observe\n")
    (found,) = load([file]).diagnostics
    assert found.code == "KS1101"
    assert "hunter2" not in diagnostics_text([found])


def test_a_long_line_costs_no_more_than_its_length(tmp_path: Path) -> None:
    """Masking a line of a megabyte ends; quadratic work would take an hour."""
    file = tmp_path / "long.yaml"
    file.write_text("level: " + "secret" * 150_000 + "\n\tx")
    assert load([file]).diagnostics[-1].code == "KS1102"


def test_a_rendered_diagnostic_shows_place_line_caret_and_fix(tmp_path: Path) -> None:
    """The exact text, so that editors and people can rely on it."""
    file = tmp_path / "p.yaml"
    file.write_text("apiVersion: killswitch.dev/v1\nkind: Ranking\nmetadata: {name: mine}\n"
                    "spec: {formula: normalised, window: 10}\n")  # fmt: skip
    (found,) = load([file]).diagnostics
    assert diagnostics_text([found]) == (
        f"{file}:4:37: error KS2101: `10` is not a duration\n"
        "  4 | spec: {formula: normalised, window: 10}\n"
        "    |                                     ^^\n"
        "  fix: write a number with its unit: 90s, 15m, 6h, 2d, 250ms or 1h30m; did you mean 10s or 10m?"
    )


def test_a_line_too_wide_to_show_is_cut_around_the_caret(tmp_path: Path) -> None:
    """The mistake stays visible, and the caret stays under it."""
    file = tmp_path / "p.yaml"
    file.write_text("apiVersion: killswitch.dev/v1\nkind: Ranking\nmetadata: {name: mine}\n"
                    f"spec: {{formula: normalised,{' ' * 300}window: 10}}\n")  # fmt: skip
    (found,) = load([file]).diagnostics
    _, shown, caret, _ = diagnostics_text([found]).splitlines()
    assert shown[caret.index("^") : caret.rindex("^") + 1] == "10"
    assert len(shown) < 140


ACCOUNT = (
    "apiVersion: killswitch.dev/v1\nkind: Account\nmetadata: {name: main}\nspec:\n  adapter: paper\n  market: swap\n"
    "  currency: USDT\n  execution: observe\n  "
)
ROUTE = "apiVersion: killswitch.dev/v1\nkind: NotificationRoute\nmetadata: {name: r}\nspec:\n  match: {}\n  "


@pytest.mark.parametrize(
    "text",
    [
        ACCOUNT + "credentials: hunter2hunter2\n",
        ACCOUNT + "credentials: 7777777777\n",
        ACCOUNT + "credentials: [hunter2hunter2]\n",
        ACCOUNT + "credentials: {key: hunter2hunter2, secret: 7777777777, passphrase: [hunter2hunter2]}\n",
        ROUTE + "targets: [{apprise: slack//hunter2hunter2}]\n",
        ROUTE + "targets: [{apprise: {url: slack//hunter2hunter2}}]\n",
    ],
)
def test_a_secret_that_is_written_in_the_wrong_shape_is_not_repeated(text: str, tmp_path: Path) -> None:
    """Neither in the message nor in the line that is shown with it."""
    path = tmp_path / "document.yaml"
    path.write_text(text)
    found = load([path]).diagnostics
    assert found
    shown = diagnostics_text(found) + str(as_json(found))
    assert "hunter2" not in shown
    assert "7777777777" not in shown
