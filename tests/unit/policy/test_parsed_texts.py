"""Parsed texts that are kept by their content: the same result, and never one that the parser did not give."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from killswitch.policy.yaml import parsed_texts
from killswitch.policy.yaml.parsed_texts import ParsedTexts, cache_folder, decoded, encoded
from killswitch.policy.yaml.parser import Node, YamlProblem, parse

REPOSITORY = Path(__file__).parents[3]
FILES = [
    *sorted((REPOSITORY / "policies").rglob("*.yaml")),
    *sorted((Path(__file__).parent / "mistakes").glob("*.yaml")),
]
TEXT = "a: {b: [1, 'two']}\n"


def shape(node: Node) -> object:
    """Everything that a node says."""
    pairs = None if node.pairs is None else [(name, shape(key), shape(it)) for name, (key, it) in node.pairs.items()]
    items = None if node.items is None else list(map(shape, node.items))
    return node.span, node.text, node.plain, node.refused, pairs, items


def result(texts: Any, text: str) -> object:
    """Documents and problems of a text."""
    problems: list[YamlProblem] = []
    roots = texts.parse(text, problems.append) if isinstance(texts, ParsedTexts) else parse(text, problems.append)
    return [(each.sound, shape(each.node)) for each in roots], problems


@pytest.mark.parametrize("file", FILES, ids=lambda file: f"{file.parent.name}/{file.stem}")
def test_a_kept_text_is_the_parsed_one(file: Path, tmp_path: Path) -> None:
    """Places, flags and problems of every shipped policy and every mistake, when it is kept and when it is read."""
    text = file.read_text(encoding="utf-8", errors="replace")
    texts = ParsedTexts(tmp_path / "cache")
    assert result(texts, text) == result(None, text)
    assert result(texts, text) == result(None, text)
    assert result(ParsedTexts(tmp_path / "cache"), text) == result(None, text)


def without_parser(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let every call of the parser fail."""

    def fail(_text: str, _note: object) -> None:
        raise AssertionError("the text was parsed")

    monkeypatch.setattr(parsed_texts.parser, "parse", fail)


def test_a_text_is_parsed_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another text, also one that differs by a space, is parsed."""
    expected = result(None, TEXT)
    result(ParsedTexts(tmp_path / "cache"), TEXT)
    without_parser(monkeypatch)
    assert result(ParsedTexts(tmp_path / "cache"), TEXT) == expected
    with pytest.raises(AssertionError, match="the text was parsed"):
        result(ParsedTexts(tmp_path / "cache"), f"{TEXT} ")


@pytest.mark.parametrize("damage", [b"", b"short", b"x" * 64], ids=["empty", "short", "other"])
def test_a_damaged_file_is_ignored(damage: bytes, tmp_path: Path) -> None:
    """Also one with a changed byte: the checksum finds it, and the text is parsed."""
    result(ParsedTexts(tmp_path / "cache"), TEXT)
    (file,) = (tmp_path / "cache").iterdir()
    whole = file.read_bytes()
    for content in (damage, whole[:-1] + bytes([whole[-1] ^ 1])):
        file.write_bytes(content)
        assert result(ParsedTexts(tmp_path / "cache"), TEXT) == result(None, TEXT)


def test_a_changed_byte_is_found() -> None:
    """ValueError, whatever msgpack makes of it."""
    problems: list[YamlProblem] = []
    content = encoded(parse(TEXT, problems.append), problems)
    with pytest.raises(ValueError, match="checksum"):
        decoded(content[:40] + bytes([content[40] ^ 1]) + content[41:])


def test_a_folder_in_which_others_may_write_is_not_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever writes there would decide what `validate` sees."""
    folder = tmp_path / "cache"
    result(ParsedTexts(folder), TEXT)
    folder.chmod(0o777)
    without_parser(monkeypatch)
    with pytest.raises(AssertionError, match="the text was parsed"):
        result(ParsedTexts(folder), TEXT)


def test_without_a_place_for_it_nothing_is_kept(tmp_path: Path) -> None:
    """A file in the place of the folder: the texts are parsed."""
    (tmp_path / "cache").write_text("")
    assert result(ParsedTexts(tmp_path / "cache"), TEXT) == result(None, TEXT)


def test_a_text_that_may_hold_a_secret_is_not_kept(tmp_path: Path) -> None:
    """A key that was written into a file by mistake has no second place; a reference to one is no secret."""
    texts = ParsedTexts(tmp_path / "cache")
    result(texts, "credentials: {key: abc123}\n")
    result(texts, "password: hunter2\n")
    assert list((tmp_path / "cache").iterdir()) == []
    result(texts, "credentials: {key: 'env:KEY'}\n")
    assert len(list((tmp_path / "cache").iterdir())) == 1


def test_the_oldest_half_is_removed_when_there_are_too_many(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """At the first text that a process keeps."""
    monkeypatch.setattr(parsed_texts, "MOST_KEPT", 4)
    for number in range(6):
        result(ParsedTexts(tmp_path / "cache"), f"a: {number}\n")
    assert len(list((tmp_path / "cache").iterdir())) <= 4


def test_the_folder_follows_the_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """KSCTL_CACHE, else XDG_CACHE_HOME if it is absolute, else ~/.cache."""
    monkeypatch.setenv("KSCTL_CACHE", str(tmp_path / "own"))
    assert cache_folder() == tmp_path / "own"
    monkeypatch.delenv("KSCTL_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert cache_folder() == tmp_path / "xdg" / "killswitch" / "parsed"
    monkeypatch.setenv("XDG_CACHE_HOME", "relative")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert cache_folder() == tmp_path / ".cache" / "killswitch" / "parsed"


def test_texts_parsed_ahead_by_other_processes_are_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every result, and the parser of this process is not called; they are kept like any other."""
    monkeypatch.setattr(parsed_texts, "PARALLEL_FROM", 1)
    monkeypatch.setattr("os.cpu_count", lambda: 2)
    texts = [file.read_text(encoding="utf-8", errors="replace") for file in FILES[:12]]
    expected = [result(None, text) for text in texts]
    ahead = ParsedTexts(tmp_path / "cache")
    ahead.parse_ahead(texts)
    without_parser(monkeypatch)
    assert [result(ahead, text) for text in texts] == expected
    assert [result(ParsedTexts(tmp_path / "cache"), text) for text in texts] == expected


def test_few_texts_start_no_process(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nor do texts that are kept: a process costs more than it saves."""

    def fail(*_: object, **__: object) -> None:
        raise AssertionError("a process was started")

    monkeypatch.setattr(parsed_texts, "ProcessPoolExecutor", fail)
    monkeypatch.setattr("os.cpu_count", lambda: 2)
    texts = ParsedTexts(tmp_path / "cache")
    texts.parse_ahead([TEXT])
    result(texts, TEXT)
    monkeypatch.setattr(parsed_texts, "PARALLEL_FROM", 1)
    texts.parse_ahead([TEXT])


def test_without_processes_texts_are_parsed_here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """On a system that starts none."""

    def fail(*_: object, **__: object) -> None:
        raise OSError("no more processes")

    monkeypatch.setattr(parsed_texts, "ProcessPoolExecutor", fail)
    monkeypatch.setattr(parsed_texts, "PARALLEL_FROM", 1)
    monkeypatch.setattr("os.cpu_count", lambda: 2)
    texts = ParsedTexts(tmp_path / "cache")
    texts.parse_ahead([TEXT])
    assert result(texts, TEXT) == result(None, TEXT)
