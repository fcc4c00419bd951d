"""Reading of directories and of mounts of ConfigMaps, laid out and switched as kubelet does it."""

from __future__ import annotations

import os
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path

import pytest

from killswitch.policy.loader import load
from killswitch.source.candidate import SourceAnswer, SourceProblem
from killswitch.source.folders import FolderProblemError, NotYetError, read_directory, read_mount
from killswitch.source.polling import (
    ManifestCheck,
    PollRequest,
    SourceSettings,
    no_manifest_check,
    poll_folder,
)
from killswitch.source.statement_checks import Manifest, ManifestRequest

RANKING = (
    "apiVersion: killswitch.dev/v1\nkind: Ranking\nmetadata: {name: NAME}\nspec: {formula: normalised, window: 1h}\n"
)


class Mount:
    """A mount as kubelet's atomic writer makes it: a folder for each generation, `..data`, and visible links to it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir()
        self._count = 0

    def switch(self, files: dict[str, str]) -> str:
        """Write a generation, make the visible links, rename `..data_tmp` to `..data`; then remove what is old."""
        self._count += 1
        name = f"..2026_11_25_02_00_{self._count:02}.1"
        for path, text in files.items():
            file = self.folder / name / path
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(text)
        for top in {path.split("/")[0] for path in files}:
            if not (self.folder / top).is_symlink():
                (self.folder / top).symlink_to(f"..data/{top}")
        (self.folder / "..data_tmp").symlink_to(name)
        (self.folder / "..data_tmp").rename(self.folder / "..data")
        for entry in list(self.folder.iterdir()):
            if entry.is_symlink() and not entry.name.startswith("..") and not entry.exists():
                entry.unlink()
        return name


def problem_of(read: Callable[[Path], object], folder: Path) -> SourceProblem:
    """The problem that reading ends with."""
    with pytest.raises(FolderProblemError) as caught:
        read(folder)
    return caught.value.problem


def digest_of(files: dict[str, str]) -> str:
    """The digest as it is defined: lengths, path and content of each file in the order of paths."""
    whole = sha256()
    for path in sorted(files):
        content = files[path].encode()
        whole.update(f"{len(path.encode())} {len(content)}\n".encode() + path.encode() + content)
    return f"sha256:{whole.hexdigest()}"


def polled(
    folder: Path, kind: str = "directory", *, previous: str | None = None, between: Callable[[], object] = lambda: None,
    check: ManifestCheck | None = None, version: int = 0,
) -> SourceAnswer:  # fmt: skip
    """The answer of one poll. `between`: what happens between the two readings of a directory."""
    settings = SourceSettings(
        name="desk",
        kind="config_map" if kind == "config_map" else "directory",
        file=folder / "source.yaml",
        folder=folder,
        is_signed=check is not None,
    )
    pauses: list[float] = []

    def pause(seconds: float) -> None:
        pauses.append(seconds)
        between()

    request = PollRequest(settings=settings, now=0, previous=previous, manifest_version=version)
    answer = poll_folder(request, pause, check or no_manifest_check)
    assert all(seconds >= 2.0 for seconds in pauses)
    return answer


def test_c1_a_mount_is_read_below_what_its_link_names(tmp_path: Path) -> None:
    """The files of one generation, also those in sub-folders, with the generation as the culprit."""
    mount = Mount(tmp_path / "mount")
    files = {"a.yaml": "a: 1\n", "desk/b.yaml": "b: 1\n"}
    name = mount.switch(files)
    content = read_mount(mount.folder)
    assert [file.path for file in content.files] == ["a.yaml", "desk/b.yaml"]
    assert (content.digest, content.generation) == (digest_of(files), name)


def test_c1_a_switch_while_reading_never_mixes_two_generations(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The link is looked at again after reading; if it has moved, everything is read again."""
    mount = Mount(tmp_path / "mount")
    mount.switch({"a.yaml": "old\n", "b.yaml": "old\n"})
    real_open = os.open
    switched: list[str] = []

    def open_and_switch(path: Path, flags: int) -> int:
        descriptor = real_open(path, flags)
        if not switched:
            switched.append(mount.switch({"a.yaml": "new\n", "b.yaml": "new\n"}))
        return descriptor

    monkeypatch.setattr("os.open", open_and_switch)
    content = read_mount(mount.folder)
    assert {file.content for file in content.files} == {b"new\n"}
    assert content.generation == switched[0]


def test_c1_a_mount_that_is_switched_all_the_time_is_not_yet(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Reading ends after a few attempts."""
    mount = Mount(tmp_path / "mount")
    mount.switch({"a.yaml": "0\n"})
    real_open = os.open

    def open_and_switch(path: Path, flags: int) -> int:
        descriptor = real_open(path, flags)
        mount.switch({"a.yaml": "x\n"})
        return descriptor

    monkeypatch.setattr("os.open", open_and_switch)
    with pytest.raises(NotYetError, match="switched 5 times"):
        read_mount(mount.folder)


def test_c2_validate_reads_a_policy_in_a_sub_folder_of_a_mount(tmp_path: Path) -> None:
    """It is no longer left out silently; places name the visible path."""
    mount = Mount(tmp_path / "mount")
    mount.switch({"a.yaml": RANKING.replace("NAME", "one"), "desk/b.yaml": RANKING.replace("NAME", "two")})
    loaded = load([mount.folder])
    assert loaded.diagnostics == ()
    assert [document.name for document in loaded.documents] == ["one", "two"]
    assert [document.source.file for document in loaded.documents] == [
        str(mount.folder / "a.yaml"), str(mount.folder / "desk" / "b.yaml"),
    ]  # fmt: skip


def test_c2_a_link_to_another_folder_is_an_error(tmp_path: Path) -> None:
    """What is behind it would be left out (KS1007), in an ordinary folder as in a mount."""
    mount = Mount(tmp_path / "mount")
    mount.switch({"a.yaml": RANKING.replace("NAME", "one")})
    (tmp_path / "other").mkdir()
    (mount.folder / "more").symlink_to(tmp_path / "other")
    plain = tmp_path / "plain"
    plain.mkdir()
    (plain / "a.yaml").write_text(RANKING.replace("NAME", "one"))
    (plain / "more").symlink_to(tmp_path / "other")
    for folder in (mount.folder, plain):
        assert [(found.code, found.file) for found in load([folder]).diagnostics] == [("KS1007", str(folder / "more"))]


def test_c3_a_file_that_is_mounted_by_itself_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is never updated (subPath): a plain file where links are expected, on a mount of its own."""
    folder = tmp_path / "sub path"
    folder.mkdir()
    (folder / "a.yaml").write_text("a: 1\n")
    assert problem_of(read_mount, folder).code == "KS8225"
    real = Path.read_text
    line = f"36 35 0:3 /x {folder.as_posix().replace(' ', chr(92) + '040')}/a.yaml ro - ext4 /dev/sda1 ro\n"

    def read_text(self: Path, *given: str, **named: str) -> str:
        return line if str(self) == "/proc/self/mountinfo" else real(self, *given, **named)

    monkeypatch.setattr(Path, "read_text", read_text)
    found = problem_of(read_mount, folder)
    assert (found.code, found.is_page) == ("KS8224", True)
    assert problem_of(read_mount, folder / "a.yaml").code == "KS8224"


def test_c4_an_unsigned_folder_is_marked_as_unprotected(tmp_path: Path) -> None:
    """A directory has no author; whoever shows its state can say that loosening is not protected."""
    (tmp_path / "a.yaml").write_text("a: 1\n")
    candidate = polled(tmp_path).candidate
    assert candidate is not None
    assert (candidate.is_protected, candidate.commit, candidate.signer) == (False, None, None)


def signed_as(version: int) -> ManifestCheck:
    """A verification that finds a manifest of this version over whatever digest it is given."""

    def check(request: ManifestRequest) -> Manifest | SourceProblem:
        assert request.statements == (b"statement",)
        assert request.folder_digest == digest_of({"a.yaml": "a: 1\n"})
        return Manifest(version, "ann")

    return check


def test_c4_a_signed_manifest_has_a_version_that_never_falls(tmp_path: Path) -> None:
    """An older folder with its old signature is refused; the same version and a later one are candidates."""
    (tmp_path / "a.yaml").write_text("a: 1\n")
    (tmp_path / "m.approval").write_text("statement")
    candidate = polled(tmp_path, check=signed_as(7), version=7).candidate
    assert candidate is not None
    assert (candidate.manifest_version, candidate.signer, candidate.is_protected) == (7, "ann", True)
    answer = polled(tmp_path, check=signed_as(6), version=7)
    assert [(found.code, found.is_page, found.principal) for found in answer.problems] == [("KS8232", True, "ann")]


def test_c4_without_a_verification_nothing_counts_as_signed(tmp_path: Path) -> None:
    """A missing verification is no successful one."""
    (tmp_path / "a.yaml").write_text("a: 1\n")
    answer = polled(tmp_path, check=no_manifest_check)
    assert answer.candidate is None
    assert [found.code for found in answer.problems] == ["KS8231"]


def test_c5_a_directory_counts_when_two_readings_two_seconds_apart_agree(tmp_path: Path) -> None:
    """A file that is written between them makes the answer "not yet", and no problem."""
    (tmp_path / "a.yaml").write_text("a: 1\n")
    answer = polled(tmp_path, between=lambda: (tmp_path / "a.yaml").write_text("a: 2\n"))
    assert answer.candidate is None
    assert answer.problems == ()
    assert answer.progress is not None
    assert "not yet" in answer.progress
    candidate = polled(tmp_path).candidate
    assert candidate is not None
    assert candidate.folder_digest == digest_of({"a.yaml": "a: 2\n"})


def test_c5_a_link_that_is_switched_is_read_at_one_target(tmp_path: Path) -> None:
    """It needs no second reading, and its target is the generation."""
    (tmp_path / "v1").mkdir()
    (tmp_path / "v1" / "a.yaml").write_text("a: 1\n")
    (tmp_path / "now").symlink_to("v1")

    def never() -> None:
        raise AssertionError

    candidate = polled(tmp_path / "now", between=never).candidate
    assert candidate is not None
    assert candidate.generation == "v1"


def test_c5_a_file_that_vanishes_is_not_yet(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An editor or a copy is at work."""
    (tmp_path / "a.yaml").write_text("a: 1\n")
    real_open = os.open

    def remove_first(path: Path, flags: int) -> int:
        Path(path).unlink()
        return real_open(path, flags)

    monkeypatch.setattr("os.open", remove_first)
    with pytest.raises(NotYetError, match="vanished"):
        read_directory(tmp_path)


def test_c5_an_empty_folder_cannot_be_read(tmp_path: Path) -> None:
    """Neither one without files, nor one with other files only, nor one that is not there: nothing is removed."""
    assert (problem_of(read_directory, tmp_path).code, problem_of(read_directory, tmp_path).is_page) == (
        "KS8221",
        False,
    )
    (tmp_path / "README.md").write_text("none\n")
    assert problem_of(read_directory, tmp_path).code == "KS8221"
    assert problem_of(read_directory, tmp_path / "none").code == "KS8220"
    mount = Mount(tmp_path / "mount")
    mount.switch({})
    assert problem_of(read_mount, mount.folder).code == "KS8220"


def test_c5_links_and_special_files_inside_are_refused(tmp_path: Path) -> None:
    """Whatever they lead to, and whatever their name is."""
    (tmp_path / "real").mkdir()
    (tmp_path / "real" / "a.yaml").write_text("a: 1\n")
    for name, target in (("link.yaml", "a.yaml"), ("folder", "/"), ("notes", "/etc/passwd")):
        link = tmp_path / "real" / name
        link.symlink_to(target)
        found = problem_of(read_directory, tmp_path / "real")
        assert (found.code, found.is_page, found.file) == ("KS8223", True, name)
        link.unlink()
    os.mkfifo(tmp_path / "real" / "pipe.yaml")
    assert problem_of(read_directory, tmp_path / "real").code == "KS8223"


def many(folder: Path, count: int, suffix: str) -> None:
    for number in range(count):
        (folder / f"{number}{suffix}").touch()


def test_s5_each_bound_has_its_own_code(tmp_path: Path) -> None:
    """Number of documents and of names, size of one and of all, depth; checked while reading."""
    for name in ("files", "names", "large", "all", "deep", "odd"):
        (tmp_path / name).mkdir()
    many(tmp_path / "files", 2_001, ".yaml")
    many(tmp_path / "names", 20_001, ".txt")
    (tmp_path / "large" / "a.yaml").write_bytes(b"#" * ((1 << 20) + 1))
    for number in range(33):
        (tmp_path / "all" / f"{number}.yaml").write_bytes(b"#" * (1 << 20))
    deep = tmp_path / "deep" / "/".join("abcdefgh")
    deep.mkdir(parents=True)
    (tmp_path / "odd" / "a\x1b[2K.yaml").touch()
    codes = {folder.name: problem_of(read_directory, folder).code for folder in tmp_path.iterdir()}
    assert codes == {
        "files": "KS8226", "names": "KS8226", "large": "KS8227", "all": "KS8228", "deep": "KS8229", "odd": "KS8230",
    }  # fmt: skip


def test_s5_what_is_within_the_bounds_is_read(tmp_path: Path) -> None:
    """Exactly at each limit: 2,000 documents, 1 MiB, 8 levels."""
    deep = tmp_path / "/".join("abcdefg")
    deep.mkdir(parents=True)
    many(deep, 1_999, ".yaml")
    (tmp_path / "large.yaml").write_bytes(b"#" * (1 << 20))
    assert len(read_directory(tmp_path).files) == 2_000


def test_a_problem_shows_no_control_character(tmp_path: Path) -> None:
    """Names come from others, and a terminal prints them."""
    (tmp_path / "a\x1b[2K\n.yaml").touch()
    found = problem_of(read_directory, tmp_path)
    assert found.text.isprintable()
    assert found.file is not None
    assert found.file.isprintable()


def test_what_has_not_changed_is_not_sent_again(tmp_path: Path) -> None:
    """The answer is empty; a new statement next to the same policies is a new candidate."""
    (tmp_path / "a.yaml").write_text("a: 1\n")
    mark = read_directory(tmp_path).mark
    assert polled(tmp_path, previous=mark) == SourceAnswer()
    (tmp_path / "ok.approval").write_text("statement")
    candidate = polled(tmp_path, previous=mark).candidate
    assert candidate is not None
    assert candidate.statements == (b"statement",)
    assert candidate.folder_digest == digest_of({"a.yaml": "a: 1\n"})
