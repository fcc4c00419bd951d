"""Policy files: which are read, and the diagnostic of each file that cannot be; never a traceback."""

from __future__ import annotations

import errno
import os
import threading
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from killswitch.policy.diagnostics.diagnostic import Diagnostic
from killswitch.policy.loader import load
from killswitch.policy.yaml import files, parser

RANKING = """apiVersion: killswitch.dev/v1
kind: Ranking
metadata: {name: NAME}
spec: {formula: normalised, window: 1h}
"""


def ranking(name: str) -> str:
    """A small valid document."""
    return RANKING.replace("NAME", name)


def only_diagnostic(paths: list[Path]) -> Diagnostic:
    """The single diagnostic of loading; there is no document."""
    loaded = load(paths)
    assert loaded.documents == ()
    (found,) = loaded.diagnostics
    return found


def names(paths: list[Path]) -> list[str]:
    """Names of the documents loaded without a diagnostic."""
    loaded = load(paths)
    assert loaded.diagnostics == ()
    return [document.name for document in loaded.documents]


def test_folders_are_read_recursively_in_the_order_of_names(tmp_path: Path) -> None:
    """Both endings count, hidden files and other files do not."""
    (tmp_path / "b").mkdir()
    (tmp_path / ".git").mkdir()
    (tmp_path / "b" / "two.yml").write_text(ranking("two"))
    (tmp_path / "a.yaml").write_text(ranking("one"))
    (tmp_path / ".hidden.yaml").write_text("no: document")
    (tmp_path / ".git" / "config.yaml").write_text("no: document")
    (tmp_path / "README.md").write_text("# no document")
    assert names([tmp_path]) == ["one", "two"]


def test_a_file_may_hold_several_documents(tmp_path: Path) -> None:
    """Empty documents between separators are ignored."""
    file = tmp_path / "many.yaml"
    file.write_text(f"---\n{ranking('one')}---\n---\n{ranking('two')}...\n")
    assert names([file]) == ["one", "two"]


def test_a_file_named_twice_is_read_once(tmp_path: Path) -> None:
    """A folder and a file in it may both be named."""
    file = tmp_path / "one.yaml"
    file.write_text(ranking("one"))
    assert names([tmp_path, file]) == ["one"]


def test_a_byte_order_mark_is_no_mistake(tmp_path: Path) -> None:
    """Editors on some systems write one."""
    file = tmp_path / "marked.yaml"
    file.write_bytes(b"\xef\xbb\xbf" + ranking("one").encode())
    assert names([file]) == ["one"]


def test_line_ends_of_other_systems_keep_their_places(tmp_path: Path) -> None:
    """Lines ended by CR LF count as one line each."""
    file = tmp_path / "crlf.yaml"
    file.write_bytes(ranking("One").replace("\n", "\r\n").encode())
    found = only_diagnostic([file])
    assert (found.code, found.line, found.column) == ("KS2105", 3, 18)
    assert found.source_line == "metadata: {name: One}"


def test_a_missing_path_is_a_diagnostic(tmp_path: Path) -> None:
    """KS1001 names the path and advises to check it."""
    found = only_diagnostic([tmp_path / "nowhere"])
    assert (found.code, found.line, found.column, found.source_line) == ("KS1001", 1, 1, "")
    assert found.file == str(tmp_path / "nowhere")
    assert "No such file" in found.message
    assert "check the path" in found.fix


def test_a_pipe_is_refused_without_waiting(tmp_path: Path) -> None:
    """What is neither file nor folder is refused before it is opened."""
    pipe = tmp_path / "pipe.yaml"
    os.mkfifo(pipe)
    found = only_diagnostic([pipe])
    assert (found.code, found.fix) == ("KS1001", "name a YAML file or a folder")


def test_a_folder_on_a_hanging_mount_is_a_diagnostic(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of two paths the one that never answers is a diagnostic, and the other is read."""
    answers = threading.Event()
    dead, read = tmp_path / "dead", tmp_path / "read"
    read.mkdir()
    (read / "one.yaml").write_text(ranking("one"))
    is_dir = Path.is_dir

    def hangs(path: Path) -> bool:
        return answers.wait() if path == dead else is_dir(path)

    monkeypatch.setattr(Path, "is_dir", hangs)
    monkeypatch.setattr(files, "ANSWERS_WITHIN", 0.05)
    try:
        loaded = load([dead, read])
    finally:
        answers.set()
    assert [document.name for document in loaded.documents] == ["one"]
    (found,) = loaded.diagnostics
    assert (found.code, found.file, found.fix) == ("KS1001", str(dead), "check that its mount is alive")
    assert "did not answer within 0.05 s" in found.message
    assert loaded.has_unidentified


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_file_without_permission_is_a_diagnostic(tmp_path: Path) -> None:
    """KS1001 again, with the system's reason."""
    file = tmp_path / "closed.yaml"
    file.write_text(ranking("one"))
    file.chmod(0)
    found = only_diagnostic([file])
    assert found.code == "KS1001"
    assert "Permission denied" in found.message


def test_a_folder_that_cannot_be_read_is_a_diagnostic(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """KS1001: it may hold policies, which would otherwise be left out without a word. What can be read is read."""
    (tmp_path / "one.yaml").write_text(ranking("one"))
    closed = tmp_path / "closed"
    closed.mkdir()
    listed = os.scandir

    def scandir(path: Any) -> Any:
        if str(path) == str(closed):
            raise PermissionError(errno.EACCES, "Permission denied", str(path))
        return listed(path)

    monkeypatch.setattr(os, "scandir", scandir)
    loaded = load([tmp_path])
    assert [document.name for document in loaded.documents] == ["one"]
    (found,) = loaded.diagnostics
    assert (found.code, found.file) == ("KS1001", str(closed))
    assert "Permission denied" in found.message
    assert loaded.has_unidentified


def test_a_dangling_link_is_a_diagnostic(tmp_path: Path) -> None:
    """A link in the folder to a missing file is reported, not skipped."""
    (tmp_path / "gone.yaml").symlink_to(tmp_path / "nowhere.yaml")
    assert only_diagnostic([tmp_path]).code == "KS1001"


def test_an_empty_folder_is_a_diagnostic(tmp_path: Path) -> None:
    """KS1002: an empty policy set would watch nothing and report that all is well."""
    found = only_diagnostic([tmp_path])
    assert (found.code, found.line, found.column) == ("KS1002", 1, 1)
    assert found.fix == "name the folder that contains the policies"


def test_no_path_at_all_is_a_diagnostic() -> None:
    """Loading nothing is not a success."""
    assert only_diagnostic([]).code == "KS1202"


def test_an_empty_file_is_a_diagnostic(tmp_path: Path) -> None:
    """KS1202: it may have been emptied by mistake."""
    file = tmp_path / "empty.yaml"
    file.write_text("")
    found = only_diagnostic([file])
    assert (found.code, found.line, found.column) == ("KS1202", 1, 1)


def test_a_file_of_ten_megabytes_is_refused_unread(tmp_path: Path) -> None:
    """KS1003 for a 10 MB file; one of just 1 MiB is read."""
    file = tmp_path / "large.yaml"
    file.write_bytes(b"# 345678\n" * 1_200_000)
    found = only_diagnostic([file])
    assert (found.code, found.line, found.column) == ("KS1003", 1, 1)
    assert "split it" in found.fix
    fitting = ranking("one")
    file.write_text(fitting + "#" * ((1 << 20) - len(fitting)))
    assert names([file]) == ["one"]


@pytest.mark.parametrize(
    ("content", "line", "column", "byte"),
    [
        (b"name: \xe9t\xe9\n", 1, 7, "0xE9"),
        ("# été\nname: ".encode() + b"\xff\n", 2, 7, "0xFF"),
        ("kind: Policy".encode("utf-16"), 1, 1, "0xFF"),
        (b"\xef\xbb\xbfa: b\nc: \xc3(", 2, 4, "0xC3"),
    ],
    ids=["latin-1", "second line, after wide characters", "utf-16", "after a mark"],
)
def test_invalid_utf8_is_reported_at_its_place(
    tmp_path: Path, content: bytes, line: int, column: int, byte: str
) -> None:
    """KS1004 counts lines and characters up to the first bad byte."""
    file = tmp_path / "latin.yaml"
    file.write_bytes(content)
    found = only_diagnostic([file])
    assert (found.code, found.line, found.column) == ("KS1004", line, column)
    assert byte in found.message
    assert found.fix == "save the file as UTF-8"


def test_a_control_character_is_reported_at_its_place(tmp_path: Path) -> None:
    """KS1005 counts lines and characters up to it."""
    file = tmp_path / "nul.yaml"
    file.write_text("kind: Policy\nname: a\x00b\n")
    found = only_diagnostic([file])
    assert (found.code, found.line, found.column) == ("KS1005", 2, 8)
    assert "U+0000" in found.message
    assert found.fix == "remove the character"


def test_a_billion_laughs_take_no_time_and_no_memory(tmp_path: Path) -> None:
    """Aliases are refused where they are and never followed, so nesting them has no effect."""
    lines = ["a0: &a0 [ha, ha, ha, ha, ha, ha, ha, ha, ha]"]
    for depth in range(1, 30):
        lines.append(f"a{depth}: &a{depth} [{', '.join([f'*a{depth - 1}'] * 9)}]")
    file = tmp_path / "laughs.yaml"
    file.write_text("\n".join(lines))
    codes = [found.code for found in load([file]).diagnostics]
    assert codes.count("KS1104") == 30 + 29 * 9
    assert set(codes) == {"KS1104", "KS1203"}


def test_too_many_values_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """KS1107 for a flat file of more than 100,000 values, at the first one too many; here it is the thousandth."""
    assert parser.LARGEST == 100_000
    monkeypatch.setattr(parser, "LARGEST", 1000)
    file = tmp_path / "flat.yaml"
    file.write_text("[" + "1," * 60_000 + "]")
    found = only_diagnostic([file])
    assert (found.code, found.line, found.column) == ("KS1107", 1, 2 * 1000)
    assert found.fix == "split the file"


@pytest.mark.parametrize(
    "text",
    ["[" * 20_000, "{a: " * 20_000, "- " * 20_000, "".join(f"{' ' * depth}a:\n" for depth in range(500))],
    ids=["lists", "mappings", "dashes", "indentation"],
)
def test_excessive_nesting_is_refused(tmp_path: Path, text: str) -> None:
    """Any kind of nesting ends in the one diagnostic."""
    file = tmp_path / "deep.yaml"
    file.write_text(text)
    found = only_diagnostic([file])
    assert (found.code, found.fix) == ("KS1107", "reduce the nesting")


def test_the_same_name_in_two_files_names_the_first(tmp_path: Path) -> None:
    """KS1207 gives the place of the other one; the first is kept."""
    (tmp_path / "a.yaml").write_text(ranking("one"))
    (tmp_path / "b.yaml").write_text(ranking("one"))
    loaded = load([tmp_path])
    (found,) = loaded.diagnostics
    assert (found.code, found.file, found.line, found.column) == ("KS1207", str(tmp_path / "b.yaml"), 3, 18)
    assert f"{tmp_path / 'a.yaml'}:3" in found.message
    assert [document.source.file for document in loaded.documents] == [str(tmp_path / "a.yaml")]


def test_documents_of_different_kinds_may_share_a_name(tmp_path: Path) -> None:
    """Names are unique per kind only."""
    group = (
        "apiVersion: killswitch.dev/v1\nkind: CorrelationGroup\nmetadata: {name: one}\nspec: {symbols: [A], order: 1}\n"
    )
    (tmp_path / "a.yaml").write_text(f"{ranking('one')}---\n{group}")
    assert names([tmp_path]) == ["one", "one"]


@given(content=st.binary(max_size=300))
def test_any_bytes_end_in_documents_or_diagnostics(tmp_path_factory: pytest.TempPathFactory, content: bytes) -> None:
    """Loading never raises, and always gives a document or a diagnostic."""
    file = tmp_path_factory.mktemp("bytes") / "any.yaml"
    file.write_bytes(content)
    loaded = load([file])
    assert loaded.documents or loaded.diagnostics


YAMLISH = st.text(alphabet="ab:-?,[]{}&*!|>'\"%@`#~ \n\t<=.01", max_size=60)


@given(text=YAMLISH)
def test_any_punctuation_ends_in_documents_or_diagnostics(tmp_path_factory: pytest.TempPathFactory, text: str) -> None:
    """The same for texts that look a little like YAML, which random bytes seldom do."""
    file = tmp_path_factory.mktemp("text") / "any.yaml"
    file.write_text(text)
    loaded = load([file])
    assert loaded.documents or loaded.diagnostics


BASE = (Path(__file__).parent / "mistakes" / "KS2205-losing-without-attribution.yaml").read_text()


@given(data=st.data())
def test_any_damage_to_a_policy_ends_in_documents_or_diagnostics(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    """A policy with a piece replaced by anything gives diagnostics, never a traceback."""
    start = data.draw(st.integers(0, len(BASE)))
    end = data.draw(st.integers(start, min(len(BASE), start + 20)))
    file = tmp_path_factory.mktemp("damaged") / "policy.yaml"
    file.write_text(BASE[:start] + data.draw(YAMLISH) + BASE[end:])
    loaded = load([file])
    assert loaded.documents or loaded.diagnostics
    for found in loaded.diagnostics:
        assert found.line >= 1
        assert found.column >= 1
        assert found.fix


def test_a_file_that_links_to_itself_is_a_diagnostic(tmp_path: Path) -> None:
    """Alone, and where the circle is closed between reading the link and resolving its path."""
    loop = tmp_path / "x.yaml"
    loop.symlink_to("x.yaml")
    (found,) = _problems(tmp_path)
    assert (found.code, found.file) == ("KS1001", str(loop))


def test_a_link_that_becomes_circular_while_it_is_read_is_a_diagnostic(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Path raises a RuntimeError of its own there."""
    (tmp_path / "x.yaml").write_text("kind: Policy\n", encoding="utf-8")

    def raise_loop(path: Path) -> Path:
        raise RuntimeError(f"Symlink loop from {path}")

    monkeypatch.setattr(Path, "resolve", raise_loop)
    (found,) = _problems(tmp_path)
    assert (found.code, "Symlink loop" in found.message) == ("KS1001", True)


def _problems(folder: Path) -> list[Diagnostic]:
    problems: list[Diagnostic] = []
    assert list(files.texts([folder], problems.append)) == []
    return problems


def test_a_link_to_a_folder_is_an_error(tmp_path: Path) -> None:
    """Its policies would silently be left out (KS1007)."""
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "policies").mkdir()
    (tmp_path / "policies" / "a.yaml").write_text(ranking("one"))
    (tmp_path / "policies" / "desk").symlink_to(tmp_path / "elsewhere")
    (found,) = load([tmp_path / "policies"]).diagnostics
    assert (found.code, found.file) == ("KS1007", str(tmp_path / "policies" / "desk"))
