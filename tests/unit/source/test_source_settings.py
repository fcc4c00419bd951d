"""The file of a source: what it may say, and the place and fix of each mistake."""

from __future__ import annotations

from pathlib import Path

import pytest
from click.testing import CliRunner

from killswitch.cli import ksctl
from killswitch.policy.loader import load
from killswitch.source.settings import SourceFileError, read_settings

HEAD = "apiVersion: killswitch.dev/v1\nkind: PolicySource\nmetadata: {name: desk}\nspec:\n"
GIT = (
    "  git: {url: 'https://git.example.com/desk/policies.git', ref: refs/heads/main, path: policies,\n"
    "    anchor: '3f6c2a1b3f6c2a1b3f6c2a1b3f6c2a1b3f6c2a1b', ssh_key: {file: keys/id}, trust: .killswitch/trust.yaml}\n"
    "  trust: trust.yaml\n"
)


def written(folder: Path, spec: str) -> Path:
    """A source file with this `spec`."""
    file = folder / "source.yaml"
    file.write_text(HEAD + spec)
    return file


def mistakes(folder: Path, spec: str) -> list[tuple[int, str]]:
    """Line and code of every mistake."""
    with pytest.raises(SourceFileError) as caught:
        read_settings(written(folder, spec))
    return [(found.line, found.code) for found in caught.value.diagnostics]


def test_a_git_source_is_read_with_whole_paths(tmp_path: Path) -> None:
    """Paths are relative to the file, wherever the program is started; times are microseconds."""
    times = "  poll: 10s\n  stale_after: 1d\n  frozen_after: 7d\n  loosening: {after: 4h}\n  shadow: {before: 2h}\n"
    found = read_settings(written(tmp_path, GIT + times))
    assert (found.name, found.kind, found.trust, found.is_signed) == ("desk", "git", tmp_path / "trust.yaml", True)
    assert found.git is not None
    assert (found.git.ssh_key, found.git.trust_path) == (tmp_path / "keys" / "id", ".killswitch/trust.yaml")
    assert (found.git.credentials, found.git.allow_file) == (None, False)
    assert (found.poll, found.stale_after, found.frozen_after) == (10_000_000, 86_400_000_000, 7 * 86_400_000_000)
    assert (found.loosening_after, found.shadow_before, found.shadow_after) == (14_400_000_000, 7_200_000_000, 0)


def test_a_directory_is_read_with_the_declared_defaults(tmp_path: Path) -> None:
    """A poll every 30 s, no delay, no demand of a signature."""
    found = read_settings(written(tmp_path, "  directory: {path: policies}\n"))
    assert (found.kind, found.folder, found.is_signed) == ("directory", tmp_path / "policies", False)
    assert (found.poll, found.stale_after, found.loosening_after, found.trust) == (30_000_000, None, 0, None)


@pytest.mark.parametrize(
    ("spec", "found"),
    [
        ("  poll: 1m\n", [(4, "KS8201")]),
        ("  directory: {path: a}\n  config_map: {path: b}\n", [(6, "KS8201")]),
        ("  config_map: {path: b, require: signed}\n", [(5, "KS8207")]),
        ("  directory: {path: b}\n  frozen_after: 1d\n", [(6, "KS8208")]),
        (GIT.replace("  trust: trust.yaml\n", ""), [(5, "KS8207")]),
        (GIT.replace("refs/heads/main", "main"), [(5, "KS8204")]),
        (GIT.replace("refs/heads/main", "refs/heads/--upload-pack"), [(5, "KS8204")]),
        (GIT.replace("refs/heads/main", "refs/heads/a..b"), [(5, "KS8204")]),
        (GIT.replace("path: policies", "path: ../policies"), [(5, "KS8206")]),
        (GIT.replace("path: policies", "path: -policies"), [(5, "KS8206")]),
        (GIT.replace("3f6c2a1b3f6c2a1b3f6c2a1b3f6c2a1b3f6c2a1b", "3f6c2a1b"), [(6, "KS8205")]),
        (GIT.replace("https://git", "file:///git"), [(5, "KS8203")]),
        (GIT.replace("https://git", "ext::sh -c"), [(5, "KS8203")]),
        (GIT.replace(".killswitch/trust.yaml", "t.yaml, approvals: policies/ok"), [(6, "KS8206")]),
    ],
    ids=[
        "none", "two", "signed without trust", "frozen directory", "git without trust", "short ref", "option as ref",
        "dots in ref", "path upwards", "option as path", "short anchor", "file", "ext", "approvals in the folder",
    ],
)  # fmt: skip
def test_each_mistake_has_its_place_and_code(tmp_path: Path, spec: str, found: list[tuple[int, str]]) -> None:
    """Nothing of a file with a mistake is used."""
    assert mistakes(tmp_path, spec) == found


@pytest.mark.parametrize("login", ["robot:hunter2@", "hunter2@"])
def test_a_password_in_an_address_is_refused_and_never_shown(tmp_path: Path, login: str) -> None:
    """Secrets are in files: an address appears in lists of processes."""
    with pytest.raises(SourceFileError) as caught:
        read_settings(written(tmp_path, GIT.replace("https://", f"https://{login}")))
    (found,) = caught.value.diagnostics
    assert found.code == "KS8203"
    assert "hunter2" not in found.message + found.fix + found.source_line


def test_a_source_in_a_policy_folder_is_refused(tmp_path: Path) -> None:
    """A set does not decide where the next one comes from (KS8202), and `validate` says so."""
    written(tmp_path, "  directory: {path: policies}\n")
    assert [found.code for found in load([tmp_path]).diagnostics] == ["KS8202"]
    done = CliRunner().invoke(ksctl, ["validate", str(tmp_path)])
    assert done.exit_code == 1
    assert "KS8202" in done.output


def test_a_source_file_holds_one_document_and_no_policy(tmp_path: Path) -> None:
    """A policy there would never be in force."""
    spec = "  directory: {path: policies}\n"
    other = "---\napiVersion: killswitch.dev/v1\nkind: Ranking\nmetadata: {name: a}\nspec: {formula: normalised}\n"
    assert mistakes(tmp_path, spec + other) == [(8, "KS1206")]
    assert mistakes(tmp_path, spec + "---\n" + HEAD.replace("desk", "other") + spec) == [(1, "KS8209")]


def test_a_source_file_that_is_missing_is_one_problem(tmp_path: Path) -> None:
    """No traceback."""
    with pytest.raises(SourceFileError, match="No such file"):
        read_settings(tmp_path / "none.yaml")


def test_the_schema_of_a_source_is_printed() -> None:
    """Editors check the file as they check policies."""
    done = CliRunner().invoke(ksctl, ["schema", "PolicySource"])
    assert done.exit_code == 0, done.output
    assert '"config_map"' in done.output
