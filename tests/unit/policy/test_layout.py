"""`ksctl fmt`: the layout of policy files, which changes white space only."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st

from killswitch.cli import ksctl
from killswitch.graph.compile import digest
from killswitch.policy.format.files import WriteRefusedError, replace_file
from killswitch.policy.format.layout import LayoutError, formatted
from killswitch.policy.loader import load
from killswitch.policy.yaml.parser import parse, plain_value

REPOSITORY = Path(__file__).parents[3]
SHIPPED = sorted((REPOSITORY / "policies").rglob("*.yaml"))
EXAMPLES = sorted((REPOSITORY / "tools" / "reference" / "examples").glob("*.yaml"))
FILES = [*SHIPPED, *EXAMPLES]

SMALL = [text for file in FILES if len(text := file.read_text()) < 1500]
"""Texts of the smaller files."""

UNTIDY = """\


# what it is
a:   1


b:
- x   # dash below its key
-   name: y
    level:  2
    # about any
    any: [ p,q ,  r ]
c:
      deep: { k:  v,  'l' : [1,2] }
      text: |
            first
              second

            third
      broken: {one: 1,
               two: 2}
# the end of c
d: "a  b
    c"
"""

TIDY = """\
# what it is
a: 1

b:
  - x   # dash below its key
  - name: y
    level: 2
    # about any
    any: [p, q, r]
c:
  deep: {k: v, 'l': [1, 2]}
  text: |
    first
      second

    third
  broken: {one: 1,
           two: 2}
# the end of c
d: "a  b
    c"
"""


def values(text: str) -> list[object]:
    """The values of all documents of a text, which is valid."""
    problems: list[Any] = []
    roots = parse(text, problems.append)
    assert problems == []
    return [plain_value(each.node) for each in roots]


def comments(text: str) -> list[str]:
    """The comments of a text whose values contain no `#`."""
    return re.findall(r"#[^\r\n]*", text)


def test_white_space_is_made_uniform() -> None:
    """Indentation, gaps, blank lines; comments, quoting, texts and hand-broken lines stay."""
    assert formatted(UNTIDY) == TIDY


def test_columns_aligned_by_hand_stay() -> None:
    """The values of neighbouring keys in one column keep their spaces; a lonely gap is one space."""
    aligned = "a:    1\nlong: 2\n"
    assert formatted(aligned) == aligned
    assert formatted("a:    1\nlonger: 2\n") == "a: 1\nlonger: 2\n"


def test_line_ends_become_those_of_unix() -> None:
    """A file that an editor of another system saved is the same policy."""
    assert formatted("a: 1\r\nb: 2  \r\n") == "a: 1\nb: 2\n"


def test_the_spaces_of_a_text_stay() -> None:
    """What is within a block text, kept line ends and deeper lines included, is a value."""
    text = "a: |+\n  x  \n\n\n    y\n\n\nb: >2\n    z\n"
    assert values(formatted(text)) == values(text)
    assert formatted(text).count("\n\n\n") == 2


def test_a_comment_below_a_text_does_not_become_a_part_of_it() -> None:
    """It is indented as the key after it."""
    assert formatted("a:\n    b: |\n        x\n    # of c\n    c: 1\n") == "a:\n  b: |\n    x\n  # of c\n  c: 1\n"


@pytest.mark.parametrize("file", FILES, ids=lambda file: f"{file.parent.name}/{file.name}")
def test_a_shipped_file_is_formatted(file: Path) -> None:
    """`ksctl fmt` changes no file that we ship."""
    text = file.read_text()
    assert formatted(text) == text


@pytest.mark.parametrize("file", FILES, ids=lambda file: f"{file.parent.name}/{file.name}")
@pytest.mark.parametrize("factor", [2, 3])
def test_formatting_never_changes_the_digest(file: Path, factor: int, tmp_path: Path) -> None:
    """Of no shipped policy and no example, in however odd a layout."""
    odd = stretched(file.read_text(), factor)
    (tmp_path / "odd.yaml").write_text(odd)
    (tmp_path / "formatted.yaml").write_text(formatted(odd))
    found = [digest(load([path]).documents) for path in (file, tmp_path / "odd.yaml", tmp_path / "formatted.yaml")]
    assert len(set(found)) == 1
    assert comments((tmp_path / "formatted.yaml").read_text()) == comments(file.read_text())


def stretched(text: str, factor: int) -> str:
    """The text with a larger indentation, blank lines between documents, and spaces at the ends of lines."""
    lines = []
    for line in text.splitlines():
        body = line.lstrip(" ")
        opened = "" if body.startswith("-") else "   "
        lines.append(" " * (factor * (len(line) - len(body))) + re.sub(r"^- ", "-" + " " * (2 * factor - 1), body))
        if body.startswith("---"):
            lines += ["", opened]
    return "\n".join(lines) + "\n\n"


WORDS = st.sampled_from(["a", "bb", "fall-15m", "4.5%", "'it''s'", '"q: {x}"', "USDT", "1", "x y", "http://a:1/b"])
TREES = st.recursive(
    WORDS,
    lambda inner: (
        st.lists(inner, min_size=1, max_size=3)
        | st.dictionaries(st.sampled_from(["k", "key", "longer", "'q'"]), inner, min_size=1, max_size=3)
    ),
    max_leaves=10,
)


class Emitter:
    """Writes a tree as YAML in an odd layout: each choice is drawn."""

    def __init__(self, draw: st.DrawFn) -> None:
        self.draw = draw
        self.number = 0

    def spaces(self, least: int) -> str:
        """At least so many spaces."""
        return " " * self.draw(st.integers(least, least + 2))

    def remark(self, indent: int) -> str:
        """Nothing, a blank line, or a comment line, at an odd place."""
        self.number += 1
        kind = self.draw(st.sampled_from(["", "", "", "\n", "\n\n\n", "comment"]))
        return f"{' ' * indent}# remark {self.number}\n" if kind == "comment" else kind

    def behind(self) -> str:
        """Nothing, spaces, or a comment behind a value."""
        self.number += 1
        return self.draw(st.sampled_from(["", "", "  ", f" # behind {self.number}", f"     # behind {self.number}"]))

    def flow(self, tree: Any) -> str:
        """A value on one line, with odd gaps."""
        pad = self.spaces(0)
        if isinstance(tree, dict):
            inside = f"{self.spaces(0)},{self.spaces(1)}".join(
                f"{k}:{self.spaces(1)}{self.flow(v)}" for k, v in tree.items()
            )
            return f"{{{pad}{inside}{pad}}}"
        if isinstance(tree, list):
            return f"[{pad}{f'{pad},{self.spaces(1)}'.join(map(self.flow, tree))}{pad}]"
        return str(tree)

    def block(self, tree: Any, indent: int, *, is_key: bool = False) -> str:
        """A value in lines; of a key, a list may begin in the column of the key."""
        lines = ""
        entries = tree.items() if isinstance(tree, dict) else ((None, each) for each in tree)
        for key, value in entries:
            head = "-" if key is None else f"{key}:"
            is_nested = isinstance(value, dict | list) and self.draw(st.booleans())
            lines += self.remark(indent)
            if not is_nested:
                lines += f"{' ' * indent}{head}{self.spaces(1)}{self.flow(value)}{self.behind()}\n"
                continue
            least = 0 if isinstance(value, list) and key is not None else 1
            deeper = indent + self.draw(st.integers(least, 5))
            lines += f"{' ' * indent}{head}{self.behind()}\n{self.block(value, deeper)}"
        return lines


@st.composite
def odd_texts(draw: st.DrawFn) -> str:
    """A valid text in an odd layout, whose root is a mapping."""
    tree = draw(st.dictionaries(st.sampled_from(["r", "root", "rest"]), TREES, min_size=1, max_size=3))
    return Emitter(draw).block(tree, 0)


@given(odd_texts())
def test_formatting_keeps_values_and_comments_and_is_idempotent(text: str) -> None:
    """Any text is formatted, once and for all; nothing but white space changes."""
    shown = formatted(text)
    assert values(shown) == values(text)
    assert comments(shown) == comments(text)
    assert shown.split() == text.split() or "".join(shown.split()) == "".join(text.split())
    assert formatted(shown) == shown
    assert "\n\n\n" not in shown
    assert not re.search(r"[ \t]+$", shown, re.MULTILINE)


def test_a_text_whose_line_end_is_a_value_is_refused() -> None:
    """KS1110: U+2028 within a quoted text is a part of it; another line end would be another text."""
    with pytest.raises(LayoutError, match="cannot be formatted: a change of its white space would change a value"):
        formatted('a: "x\u2028  y"\n')


def run(*args: str | Path) -> Any:
    """`ksctl fmt` with these arguments."""
    return CliRunner().invoke(ksctl, ["fmt", *map(str, args)])


def test_files_are_written_once(tmp_path: Path) -> None:
    """Exit 0 with the name of each changed file; a second run changes nothing, and the permissions stay."""
    (tmp_path / "untidy.yaml").write_text(UNTIDY)
    (tmp_path / "untidy.yaml").chmod(0o640)
    (tmp_path / "tidy.yaml").write_text(TIDY)
    done = run(tmp_path)
    assert done.exit_code == 0
    assert f"formatted: {tmp_path / 'untidy.yaml'}" in done.output
    assert "1 file formatted, 1 file unchanged, 0 problems" in done.output
    assert (tmp_path / "untidy.yaml").read_text() == TIDY
    assert (tmp_path / "untidy.yaml").stat().st_mode & 0o777 == 0o640
    assert sorted(path.name for path in tmp_path.iterdir()) == ["tidy.yaml", "untidy.yaml"]
    assert "0 files formatted, 2 files unchanged" in run(tmp_path).output


def test_a_link_stays_a_link(tmp_path: Path) -> None:
    """The file that it leads to is written."""
    (tmp_path / "real").mkdir()
    (tmp_path / "real" / "a.yaml").write_text("a:   1\n")
    (tmp_path / "link.yaml").symlink_to(tmp_path / "real" / "a.yaml")
    assert run(tmp_path / "link.yaml").exit_code == 0
    assert (tmp_path / "link.yaml").is_symlink()
    assert (tmp_path / "real" / "a.yaml").read_text() == "a: 1\n"


def test_check_and_diff_write_nothing(tmp_path: Path) -> None:
    """`--check` exits 1 for a file that would change; `--diff` shows it, with secrets masked."""
    file = tmp_path / "untidy.yaml"
    file.write_text("a:   1\npassword:   hunter2\n")
    checked = run(file, "--check")
    assert (checked.exit_code, file.read_text()) == (1, "a:   1\npassword:   hunter2\n")
    assert f"would be formatted: {file}" in checked.output
    shown = run(file, "--diff")
    assert shown.exit_code == 0
    assert "-a:   1\n" in shown.output
    assert "+a: 1\n" in shown.output
    assert "hunter2" not in shown.output
    assert run(file, "--check", "-o", "json").exit_code == 1
    assert json.loads(run(file, "--diff", "-o", "json").output)["changed"] == [str(file)]


def test_a_file_that_is_no_yaml_is_named_and_left_as_it_is(tmp_path: Path) -> None:
    """Exit 1 with code, place and fix; the others are formatted."""
    (tmp_path / "bad.yaml").write_text("a: [1\n")
    (tmp_path / "good.yaml").write_text("a:   1\n")
    (tmp_path / "odd.yaml").write_text('a: "x\u2028  y"\n')
    done = run(tmp_path)
    assert done.exit_code == 1
    assert f"{tmp_path / 'bad.yaml'}:2:1: error KS1101" in done.output
    assert f"{tmp_path / 'odd.yaml'}:1:1: error KS1110" in done.output
    assert (tmp_path / "bad.yaml").read_text() == "a: [1\n"
    assert (tmp_path / "good.yaml").read_text() == "a: 1\n"
    assert run(tmp_path / "missing.yaml").exit_code == 1


def test_a_read_only_file_is_named_and_the_others_are_written(tmp_path: Path) -> None:
    """KS1006, exit 1: whoever made it read-only meant it, also for a user who may write everything."""
    (tmp_path / "a.yaml").write_text("a:   1\n")
    (tmp_path / "a.yaml").chmod(0o444)
    (tmp_path / "b.yaml").write_text("b:   1\n")
    done = run(tmp_path)
    assert done.exit_code == 1
    assert f"{tmp_path / 'a.yaml'}:1:1: error KS1006" in done.output
    assert "1 file formatted, 0 files unchanged, 1 problem" in done.output
    assert (tmp_path / "a.yaml").read_text() == "a:   1\n"
    assert (tmp_path / "b.yaml").read_text() == "b: 1\n"


def test_a_file_that_an_editor_saved_meanwhile_is_not_overwritten(tmp_path: Path) -> None:
    """What was formatted is no longer what is there; what another run has formatted alike is no problem."""
    file = tmp_path / "a.yaml"
    file.write_text("a:   2\n")
    with pytest.raises(WriteRefusedError, match="has changed since it was read"):
        replace_file(file, "a:   1\n", "a: 1\n")
    assert file.read_text() == "a:   2\n"
    file.write_text("a: 1\n")
    replace_file(file, "a: 1\n", "a: 1\n")
    assert [path.name for path in tmp_path.iterdir()] == ["a.yaml"]


def test_a_byte_order_mark_is_no_change(tmp_path: Path) -> None:
    """It goes with the first change, and nothing else is lost."""
    file = tmp_path / "a.yaml"
    file.write_bytes(b"\xef\xbb\xbfa:   1  # \xc3\xbc\r\n")
    assert run(file).exit_code == 0
    assert file.read_bytes() == "a: 1  # ü\n".encode()


def test_two_runs_at_once_leave_whole_files(tmp_path: Path) -> None:
    """200 files, formatted by two processes together: each file is formatted, and nothing else is left."""
    for number in range(200):
        (tmp_path / f"{number}.yaml").write_text(f"a:   {number}\n")
    command = [sys.executable, "-c", "from killswitch.cli import main; main()", "fmt", str(tmp_path)]
    both = [subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) for _ in range(2)]
    assert {each.wait() for each in both} <= {0, 1}
    assert {path.name: path.read_text() for path in tmp_path.iterdir()} == {
        f"{number}.yaml": f"a: {number}\n" for number in range(200)
    }


@pytest.mark.parametrize("text", ["", "\n", "# only a comment", "---\n", "\n\n# a\n\n\n# b\n\n"])
def test_a_file_without_a_document_keeps_its_comments(text: str) -> None:
    """It has nothing to be wrong."""
    shown = formatted(text)
    assert comments(shown) == comments(text)
    assert formatted(shown) == shown


def test_an_empty_value_before_the_end_of_its_document_is_formatted() -> None:
    """The mark of the next document is no value of it, with or without something behind it."""
    assert formatted("a:   1\nb:\n---\nc:   2\n") == "a: 1\nb:\n---\nc: 2\n"
    assert formatted("a:   1\nb:\n---   # next\nc:   2\n...\n") == "a: 1\nb:\n---   # next\nc: 2\n...\n"
    assert formatted("a: {b:   1, c: , d:   }\n") == "a: {b: 1, c: , d: }\n"


@pytest.mark.parametrize(
    ("head", "line"),
    [("a: 1\n", "# c\n"), ("a: 1\n", "  # c\n"), ("", "k{}: |\n  x\n"), ("a:\n", "  - {{b: {}}} # c\n")],
)
def test_no_layout_looks_at_a_line_for_each_other_line(head: str, line: str) -> None:
    """Twice as many lines take twice as many calls of functions, within a fifth."""
    few, many = (calls_of(head + "".join(line.format(number) for number in range(lines))) for lines in (150, 300))
    assert many <= 2.2 * few


def calls_of(text: str) -> int:
    """How many calls, and resumed generators, it takes to format a text."""
    calls = [0]

    def count(_frame: object, event: str, _argument: object) -> None:
        calls[0] += event == "call"

    before = sys.getprofile()
    sys.setprofile(count)
    try:
        formatted(text)
    finally:
        sys.setprofile(before)
    return calls[0]


ODD_LINES = st.sampled_from(
    ["# x", "      # {y: [1 ,2]}", "", "   ", "\t", "---", "...", "# - a:  b", "a:", "  b:   c", "- d", "'q': \"e  f\""]
)


@given(st.lists(ODD_LINES, max_size=12), st.sampled_from(["\n", "\r\n", "\r"]), st.sampled_from(SMALL), st.data())
def test_whatever_stands_between_the_lines_of_a_policy_no_comment_is_lost(
    odd: list[str], line_end: str, text: str, data: st.DataObject
) -> None:
    """Comments, blank lines, marks and other entries anywhere: the values are the same, or the file is refused."""
    lines = text.splitlines()
    for each in odd:
        lines.insert(data.draw(st.integers(0, len(lines))), each)
    written = line_end.join(lines) + line_end
    try:
        shown = formatted(written)
    except LayoutError:
        return
    assert values(shown) == values(written)
    assert [each.rstrip() for each in comments(shown)] == [each.rstrip() for each in comments(written)]
    assert formatted(shown) == shown
