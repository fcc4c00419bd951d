"""Policy files in memory: loaded and compiled as a folder that holds them, without reading the disk."""

from __future__ import annotations

from pathlib import Path

import pytest
from msgspec.structs import replace

from killswitch.graph.compile import compile_loaded
from killswitch.incident.report.runbooks import compile_all
from killswitch.model.applied_set import PolicyFile
from killswitch.policy.diagnostics.diagnostic import Diagnostic
from killswitch.policy.loader import load, load_texts

POLICIES = Path("policies")
RANKING = (
    b"apiVersion: killswitch.dev/v1\nkind: Ranking\nmetadata: {name: NAME}\nspec: {formula: normalised, window: 1h}\n"
)
RUNBOOK = b"apiVersion: killswitch.dev/v1\nkind: Runbook\nmetadata: {name: ours}\nspec: {template: ours.md.j2}\n"


def files_below(folder: Path) -> tuple[PolicyFile, ...]:
    """All regular files below a folder."""
    found = (each for each in folder.rglob("*") if each.is_file())
    return tuple(PolicyFile(str(each.relative_to(folder)), each.read_bytes()) for each in found)


@pytest.mark.parametrize(
    "folder", [each for each in sorted(POLICIES.iterdir()) if each.is_dir()], ids=lambda it: it.name
)
def test_files_in_memory_compile_to_the_digest_of_their_folder(folder: Path) -> None:
    """Each shipped set has one digest and the same warnings, from the disk and from memory."""
    on_disk, problems = compile_loaded(load([folder]))
    in_memory, found = compile_loaded(load_texts(files_below(folder)))
    assert on_disk is not None and in_memory is not None
    assert in_memory.digest == on_disk.digest
    assert [replace(each, file=str(folder / each.file)) for each in found] == list(problems)


def test_mistakes_name_paths_as_written(tmp_path: Path) -> None:
    """Each file that cannot be read, and each mistake, has the diagnostic of the same folder, with relative paths."""
    written = {
        "sub/one.yaml": RANKING.replace(b"NAME", b"one").replace(b"window", b"windw"),
        "b.yml": b"\xff\xfe",
        "c.yaml": b"#" * ((1 << 20) + 1),
        "d.yaml": b"a: [",
    }
    for name, content in written.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(content)
    found = load_texts(PolicyFile(name, content) for name, content in written.items()).diagnostics
    assert {each.file for each in found} == set(written)

    def shortened(each: Diagnostic) -> Diagnostic:
        return replace(
            each, file=each.file.removeprefix(f"{tmp_path}/"), message=each.message.replace(f"{tmp_path}/", "")
        )

    assert set(map(shortened, load([tmp_path]).diagnostics)) == set(found)


def test_hidden_and_other_files_are_left_out() -> None:
    """As in a folder, a name with a leading dot is hidden, and text that is no YAML is no document."""
    names = (".git/a.yaml", ".hidden.yaml", "README.md", "kept.yaml", "notes.txt")
    files = [PolicyFile(each, RANKING.replace(b"NAME", b"kept")) for each in names]
    loaded = load_texts(files)
    assert ([each.source.file for each in loaded.documents], loaded.diagnostics) == (["kept.yaml"], ())


def test_an_empty_folder_in_memory_is_a_problem() -> None:
    """Nothing to read is an error, never an empty policy set."""
    assert [each.code for each in load_texts(()).diagnostics] == ["KS1002"]
    assert [each.code for each in load_texts([PolicyFile("a.yaml", b"# nothing\n")]).diagnostics] == ["KS1202"]


def test_templates_of_files_in_memory_are_read_below_the_given_folder(tmp_path: Path) -> None:
    """A template is found where the folder was written, and a mistake in it is named by its path in the set."""
    loaded = load_texts([PolicyFile("desk/book.yaml", RUNBOOK)])
    (missing,) = compile_all(loaded, below=tmp_path)[1]
    assert (missing.code, missing.message) == ("KS6101", "there is no template at desk/ours.md.j2")
    (tmp_path / "desk").mkdir()
    (tmp_path / "desk/ours.md.j2").write_text("{{ nothing_known }}")
    (wrong, *_) = compile_all(loaded, below=tmp_path)[1]
    assert wrong.file == "desk/ours.md.j2"
    (tmp_path / "desk/ours.md.j2").write_text("# Trim\n")
    assert compile_all(loaded, below=tmp_path)[1] == ()
