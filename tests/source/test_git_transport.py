"""How a git source is fetched: canaries that a repository names and that never run, hosts that refuse, hang, redirect
or demand a login, and a copy on the disk that somebody wrote to."""

from __future__ import annotations

import json
import os
import resource
import socket
import ssl
import subprocess
import threading
import zlib
from base64 import b64encode
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import msgspec
import pytest
from msgspec.structs import replace

from killswitch.source.git_command import GitClone
from killswitch.source.git_poll import poll_in_child
from killswitch.source.git_problems import GitSourceError, printable
from killswitch.source.git_request import GitLimits, GitSource, check_source
from killswitch.source.limited_process import LimitedProcessError, ProcessLimits, python_module, run_limited
from tests.source.signed_repositories import LOOSE, TIGHT, Desk, texts

TOKEN = "s3cret-token-of-the-desk"


@pytest.mark.parametrize(
    "url",
    [
        "ext::sh -c touch% /tmp/canary",
        "http://git.example.com/desk.git",
        "git://git.example.com/desk.git",
        "https://user:password@git.example.com/desk.git",
        "https://user@git.example.com/desk.git",
        "https://git.example.com/desk.git?token=a",
        "https://-oProxyCommand=evil/desk.git",
        "ssh://-oProxyCommand=evil/desk.git",
        "ssh://-oProxyCommand@git.example.com/desk.git",
        "ssh://git.example.com/desk.git\n",
        "ssh://git.example.com/desk'$(evil)'.git",
        "git@git.example.com:desk.git",
        "--upload-pack=evil",
        "/srv/desk.git",
        "file:///srv/desk.git",
        "https://git.example.com/a b",
    ],
)
def test_an_address_that_git_could_read_as_anything_else_is_refused(desk: Desk, url: str) -> None:
    """Before git is started: options, helpers, logins, other protocols; a folder only where it is declared."""
    desk.source = replace(desk.source, url=url, allow_file=False)
    (problem,) = desk.poll().answer.problems
    assert problem.code == "KS8002"
    assert "password" not in problem.text
    assert not Path(desk.source.folder).exists()


@pytest.mark.parametrize(
    "changes",
    [
        {"ref": "main"}, {"ref": "refs/heads/-x"}, {"ref": "refs/heads/a..b"}, {"ref": "refs/heads/a\n"},
        {"ref": "HEAD"}, {"ref": "3f6c"}, {"ref": "refs/heads/a.lock"}, {"ref": "refs/remotes/a"}, {"ref": "A" * 40},
        {"path": "/etc"}, {"path": "../a"}, {"path": "a//b"}, {"path": "-a"}, {"path": "a/.GIT/b"}, {"path": "a\x1bb"},
        {"trust_path": "../a"}, {"approvals_path": "policies/approvals"}, {"approvals_path": "policies"},
        {"anchor": "main"}, {"anchor": "f" * 39},
    ],
)  # fmt: skip
def test_h1_a_ref_a_path_or_an_anchor_of_another_form_is_refused(desk: Desk, changes: dict[str, str]) -> None:
    """H1: refs by full name, ids by 40 small digits, paths inside of the repository, approvals outside of `path`."""
    with pytest.raises(GitSourceError) as refused:
        check_source(replace(desk.source, **changes))
    assert refused.value.code == "KS8002"


def test_ordinary_addresses_are_accepted() -> None:
    """Hosts with ports, numbers and users of ssh."""
    plain = GitSource(name="a", url="", ref="refs/heads/main", path="", folder="/srv/a", approvals_path=".a")
    urls = {
        "https://git.example.com/desk/policies.git": "https",
        "https://127.0.0.1:8443/desk.git": "https",
        "https://[::1]:8443/a": "https",
        "ssh://git@git.example.com/desk/policies.git": "ssh",
        "ssh://git.example.com:2222/~desk/a+b.git": "ssh",
    }
    assert {url: check_source(replace(plain, url=url)) for url in urls} == urls


class Canary:
    """A program that leaves a mark where it runs."""

    def __init__(self, folder: Path) -> None:
        self._mark = folder / "it-ran"
        self.program = folder / "canary"
        self.program.write_text(f"#!/bin/sh\necho $0 >> '{self._mark}'\ncat\n")
        self.program.chmod(0o755)

    @property
    def runs(self) -> list[str]:
        return self._mark.read_text().splitlines() if self._mark.exists() else []

    def settings(self) -> str:
        """A configuration that would run it at every occasion that git has."""
        run = str(self.program)
        return (
            f"[core]\n\tfsmonitor = {run}\n\tpager = {run}\n\teditor = {run}\n\tsshCommand = {run}\n"
            f"\tgitProxy = {run}\n"
            f"\tattributesFile = {run}\n\taskPass = {run}\n\talternateRefsCommand = {run}\n"
            f"[filter \"evil\"]\n\tclean = {run}\n\tsmudge = {run}\n\tprocess = {run}\n\trequired = true\n"
            f"[diff \"evil\"]\n\ttextconv = {run}\n\tcommand = {run}\n"
            f"[alias]\n\tfetch = !{run}\n\tcat-file = !{run}\n"
            f"[uploadpack]\n\tpackObjectsHook = {run}\n[credential]\n\thelper = {run}\n[gpg]\n\tprogram = {run}\n"
            f"[gpg \"ssh\"]\n\tprogram = {run}\n[protocol]\n\tallow = always\n"
            f"[url \"ext::{run}\"]\n\tinsteadOf = file://\n[include]\n\tpath = {run}\n"
        )  # fmt: skip

    def hooks(self, folder: Path) -> None:
        """Every hook of git, in a folder."""
        folder.mkdir(parents=True, exist_ok=True)
        for name in (
            "reference-transaction",
            "post-checkout",
            "pre-auto-gc",
            "post-index-change",
            "update",
            "fsmonitor",
        ):
            (folder / name).unlink(missing_ok=True)
            (folder / name).symlink_to(self.program)


def test_nothing_that_a_repository_names_is_run(desk: Desk, tmp_path: Path) -> None:
    """Hooks, filters, fsmonitor, aliases, pagers, submodules and `ext::` of the host, in its content and settings."""
    canary = Canary(tmp_path)
    run = str(canary.program)
    desk.host.commit(
        {
            "policies/desk.yaml": "a: 1\n",
            "policies/.gitattributes": "* filter=evil diff=evil\n",
            ".gitattributes": "* filter=evil diff=evil merge=evil\n",
            ".gitmodules": f'[submodule "evil"]\n\tpath = sub\n\turl = ext::{run}\n',
            ".lfsconfig": f"[lfs]\n\turl = ext::{run}\n",
            "bare/HEAD": "ref: refs/heads/main\n",
            "bare/config": canary.settings(),
            "bare/objects/x": "",
            "bare/refs/x": "",
        },
        "alice",
    )
    commit = desk.host.head
    refused = f'[submodule "evil"]\n\tpath = sub\n\turl = a\n\tupdate = !{run}\n'
    evil = desk.host.commit({".gitmodules": refused}, "alice")
    desk.host.reset(commit)
    settings = desk.host.folder / ".git" / "config"
    settings.write_text(settings.read_text() + canary.settings().replace("[include]", "[ignored]"))
    canary.hooks(desk.host.folder / ".git" / "hooks")
    assert desk.proposed() == commit
    desk.host.put(evil)
    (problem,) = desk.poll().answer.problems
    assert (problem.code, problem.is_page) == ("KS8010", True)
    assert canary.runs == []
    desk.host.put(commit)
    assert desk.proposed() == commit


def test_s4_a_copy_that_somebody_wrote_to_runs_nothing_and_changes_nothing(desk: Desk, tmp_path: Path) -> None:
    """S4: settings, hooks, attributes, alternates, grafts, replacements and a shallow file in the runner's clone."""
    canary = Canary(tmp_path)
    evil = desk.host.write_object(desk.host.raw(desk.anchor))
    commit = desk.host.commit(LOOSE, "alice")
    assert desk.proposed() == commit
    clone = Path(desk.source.folder) / "repository.git"
    (clone / "config").write_text((clone / "config").read_text() + canary.settings())
    canary.hooks(clone / "hooks")
    written = {
        "info/attributes": "* filter=evil\n", "info/grafts": f"{commit}\n", "commondir": str(tmp_path),
        "objects/info/alternates": f"{tmp_path}\n", "objects/info/commit-graph": "x", "config.worktree": "x",
        f"refs/replace/{commit}": f"{evil}\n", "packed-refs": f"{evil} refs/replace/{commit}\n",
    }  # fmt: skip
    for name, content in written.items():
        file = clone / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(content)
    candidate = desk.poll().answer.candidate
    assert candidate is not None
    assert candidate.commit == commit
    assert texts(candidate.files) == {"desk.yaml": LOOSE["policies/desk.yaml"]}
    assert canary.runs == []
    assert [name for name in written if (clone / name).exists()] == []
    (clone / "shallow").write_text(f"{commit}\n")
    assert desk.proposed() == commit
    assert not (clone / "shallow").exists()


def test_s4_bytes_on_the_disk_that_do_not_hash_to_their_id_are_fetched_again(desk: Desk) -> None:
    """S4 H4: a blob, a tree and a commit of the clone that were exchanged for others."""
    commit = desk.host.commit(LOOSE, "alice")
    assert desk.proposed() == commit
    forged = {
        desk.host.git("rev-parse", "HEAD:policies/desk.yaml"): b"blob 5\0a: 1\n",
        desk.host.git("rev-parse", "HEAD:policies"): b"tree 0\0",
        commit: b"commit 5\0a: 1\n",
    }
    for name, content in forged.items():
        objects = Path(desk.source.folder) / "repository.git" / "objects"
        pack = next(objects.glob("pack/*.pack"))
        aside = pack.rename(objects.parent / "aside")
        for other in objects.glob("pack/pack-*"):
            other.unlink()
        with aside.open("rb") as packed:
            unpack = ["git", f"--git-dir={objects.parent}", "unpack-objects", "-q"]
            subprocess.run(unpack, stdin=packed, check=True, env={"PATH": os.environ["PATH"], "HOME": "/nonexistent"})
        aside.unlink()
        loose = objects / name[:2] / name[2:]
        loose.chmod(0o600)
        loose.write_bytes(zlib.compress(content))
        answer = desk.poll().answer
        assert answer.candidate is not None, answer
        assert texts(answer.candidate.files) == {"desk.yaml": LOOSE["policies/desk.yaml"]}
        assert list(objects.glob("pack/*.pack")), "it was fetched again"


@pytest.fixture(scope="session")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, str]:
    """A certificate of 127.0.0.1 and its key."""
    folder = tmp_path_factory.mktemp("tls")
    files = str(folder / "certificate.pem"), str(folder / "key.pem")
    command = [
        "openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=127.0.0.1",
        "-addext", "subjectAltName=IP:127.0.0.1", "-out", files[0], "-keyout", files[1],
    ]  # fmt: skip
    subprocess.run(command, check=True, capture_output=True)
    return files


@contextmanager
def serving(handler: type[BaseHTTPRequestHandler], certificate: tuple[str, str]) -> Iterator[str]:
    """The address of an HTTPS server on loopback."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*certificate)
    server.socket = context.wrap_socket(server.socket, server_side=True)
    thread = threading.Thread(target=server.serve_forever, args=(0.05,))
    thread.start()
    try:
        yield f"https://127.0.0.1:{server.server_address[1]}/desk.git"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


class Quiet(BaseHTTPRequestHandler):
    """A server that logs nothing."""

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 # the name of the base class
        pass

    def handle(self) -> None:
        with suppress(OSError):  # the client has gone, as it should
            super().handle()


def git_host(folder: Path, login: str | None) -> type[BaseHTTPRequestHandler]:
    """git's own server program for HTTP, behind a login."""

    class GitHost(Quiet):
        def do_GET(self) -> None:
            self._serve()

        def do_POST(self) -> None:
            self._serve()

        def _serve(self) -> None:
            wanted = None if login is None else f"Basic {b64encode(login.encode()).decode()}"
            given = self.headers.get("Authorization")
            if wanted is not None and given != wanted:
                self.send_response(401)
                self.send_header("WWW-Authenticate", 'Basic realm="desk"')
                body = f"remote says: {given}\x1b[31m\n".encode()
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)
                return
            path, _, query = self.path.partition("?")
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            environment = {
                "PATH": os.environ["PATH"], "GIT_PROJECT_ROOT": str(folder), "GIT_HTTP_EXPORT_ALL": "1",
                "PATH_INFO": path.removeprefix("/desk.git"), "QUERY_STRING": query, "REQUEST_METHOD": self.command,
                "CONTENT_TYPE": self.headers.get("Content-Type") or "", "CONTENT_LENGTH": str(len(body)),
                "HTTP_CONTENT_ENCODING": self.headers.get("Content-Encoding") or "",
                "GIT_PROTOCOL": self.headers.get("Git-Protocol") or "", "HOME": "/nonexistent",
                "GIT_CONFIG_COUNT": "1", "GIT_CONFIG_KEY_0": "safe.directory", "GIT_CONFIG_VALUE_0": "*",
            }  # fmt: skip
            done = subprocess.run(["git", "http-backend"], input=body, capture_output=True, env=environment, check=True)
            head, _, content = done.stdout.partition(b"\r\n\r\n")
            lines = [line.decode().partition(": ") for line in head.split(b"\r\n")]
            status = next((value for name, _, value in lines if name == "Status"), "200")
            self.send_response(int(status.split()[0]))
            for name, _, value in lines:
                if name != "Status":
                    self.send_header(name, value)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

    return GitHost


def test_a_host_that_demands_a_login_gets_the_one_of_the_file_and_no_output_has_it(
    desk: Desk, certificate: tuple[str, str], tmp_path: Path
) -> None:
    """Without a file, with a wrong one, with one of another form, and with the right one; over HTTPS."""
    commit = desk.host.commit(LOOSE, "alice")
    login = tmp_path / "login"
    with serving(git_host(desk.host.folder / ".git", f"desk:{TOKEN}"), certificate) as url:
        desk.source = replace(desk.source, url=url, ca_file=certificate[0], credentials=None)
        assert desk.codes() == ["KS8004"]
        login.write_text(f"desk:not-{TOKEN}\n")
        desk.source = replace(desk.source, credentials=str(login))
        answer = desk.poll().answer
        assert [each.code for each in answer.problems] == ["KS8004"]
        assert TOKEN not in str(answer)
        assert b64encode(f"desk:not-{TOKEN}".encode()).decode() not in str(answer)
        login.write_text(f"{TOKEN}\n")
        answer = desk.poll().answer
        assert [each.code for each in answer.problems] == ["KS8014"]
        assert TOKEN not in str(answer)
        login.write_text(f"desk:{TOKEN}\n")
        assert desk.proposed() == commit
        login.unlink()
        assert desk.codes() == ["KS8014"]


def test_a_host_whose_certificate_nobody_knows_is_not_read(desk: Desk, certificate: tuple[str, str]) -> None:
    """Certificates are checked by the system's authorities, or by the configured file."""
    desk.host.commit(LOOSE, "alice")
    with serving(git_host(desk.host.folder / ".git", None), certificate) as url:
        desk.source = replace(desk.source, url=url)
        (problem,) = desk.poll().answer.problems
        assert problem.code == "KS8003"
        assert "certificate" in problem.text


def test_a_redirect_is_not_followed(desk: Desk, certificate: tuple[str, str], tmp_path: Path) -> None:
    """A login does not reach another host."""
    reached: list[str | None] = []

    class Elsewhere(Quiet):
        def do_GET(self) -> None:
            reached.append(self.headers.get("Authorization"))
            self.send_error(404)

    login = tmp_path / "login"
    login.write_text(f"desk:{TOKEN}\n")
    with serving(Elsewhere, certificate) as other:

        class Redirecting(Quiet):
            def do_GET(self) -> None:
                self.send_response(301)
                self.send_header("Location", f"{other}/info/refs?service=git-upload-pack")
                self.send_header("Content-Length", "0")
                self.end_headers()

        with serving(Redirecting, certificate) as url:
            desk.source = replace(desk.source, url=url, ca_file=certificate[0], credentials=str(login))
            assert desk.codes() == ["KS8015"]
    assert reached == []


def test_s5_a_host_that_sends_a_byte_a_second_is_given_up(desk: Desk, certificate: tuple[str, str]) -> None:
    """S5: git never gets an answer; what it started is ended, and the honest host is read at the next poll."""
    over = threading.Event()

    class Slow(Quiet):
        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("Content-Type", "application/x-git-upload-pack-advertisement")
            self.end_headers()
            while not over.wait(1.0):
                self.wfile.write(b"0")

    commit = desk.host.commit(LOOSE, "alice")
    honest = desk.source
    with serving(Slow, certificate) as url:
        desk.source = replace(desk.source, url=url, ca_file=certificate[0])
        desk.limits = GitLimits(fetch_seconds=1.5)
        assert desk.codes() == ["KS8008"]
        over.set()
    desk.source, desk.limits = honest, GitLimits()
    assert desk.proposed() == commit


def test_an_ssh_host_is_accepted_by_the_known_hosts_file_only(desk: Desk, tmp_path: Path) -> None:
    """Without the file no host is asked; with it ssh runs with that file and no other configuration."""
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        port = unused.getsockname()[1]
    desk.source = replace(desk.source, url=f"ssh://git@127.0.0.1:{port}/desk.git")
    assert desk.codes() == ["KS8005"]
    known = tmp_path / "known hosts"
    known.write_text("")
    desk.source = replace(desk.source, known_hosts=str(known), ssh_key=str(tmp_path / "key"))
    (problem,) = desk.poll().answer.problems
    assert problem.code == "KS8003"
    assert "Connection refused" in problem.text
    options = (Path(desk.source.folder) / "home" / "ssh_config").read_text().splitlines()
    assert {"StrictHostKeyChecking yes", "BatchMode yes", "ProxyCommand none", f'UserKnownHostsFile "{known}"'} <= {
        *options
    }
    desk.source = replace(desk.source, known_hosts=str(tmp_path / "a%d"))
    assert desk.codes() == ["KS8002"]


def test_the_folder_of_a_source_is_for_its_user_only(desk: Desk) -> None:
    """Mode 0700 for the folder, 0600 for what holds a login."""
    desk.host.commit(LOOSE, "alice")
    desk.proposed()
    folder = Path(desk.source.folder)
    assert folder.stat().st_mode & 0o777 == 0o700
    assert (folder / "home").stat().st_mode & 0o777 == 0o700
    assert (folder / "home" / "gitconfig").stat().st_mode & 0o777 == 0o600


def test_a_folder_that_cannot_be_written_is_a_warning(desk: Desk, tmp_path: Path) -> None:
    """A full disk, a file in its place, a missing mount: the set in force stays."""
    (tmp_path / "file").write_text("")
    desk.source = replace(desk.source, folder=str(tmp_path / "file" / "runner"))
    (problem,) = desk.poll().answer.problems
    assert (problem.code, problem.is_page) == ("KS8011", False)


def test_a_full_disk_is_a_warning_and_the_next_poll_goes_on(desk: Desk, tmp_path: Path) -> None:
    """A file system of 300 kB; once there is room the same commit is taken."""
    small = tmp_path / "small"
    small.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=300k", "tmpfs", str(small)], capture_output=True, check=False
    )
    if mounted.returncode != 0:
        pytest.skip("needs the right to mount a file system")
    try:
        (small / "filler").write_bytes(b"x" * 280_000)
        noise = os.urandom(60_000)
        commit = desk.host.commit(LOOSE | {"noise.bin": noise.hex()}, "alice")
        desk.source = replace(desk.source, folder=str(small / "runner"))
        (problem,) = desk.poll().answer.problems
        assert (problem.code, problem.is_page) == ("KS8011", False), problem
        (small / "filler").unlink()
        assert desk.proposed() == commit
    finally:
        subprocess.run(["umount", "--lazy", str(small)], check=False)


def test_the_version_of_git_is_noted_and_not_refused_where_it_may_be_ported_back(desk: Desk) -> None:
    """A note for an operator with the version that was found; it is no problem."""
    found = subprocess.run(["git", "version"], capture_output=True, text=True, check=True).stdout.split()[2]
    notes = GitClone(desk.source, desk.limits).prepare()
    parts = tuple(int(each) for each in found.split(".")[:3])
    assert (notes == ()) == (parts >= (2, 56, 1))
    assert all(found in note for note in notes)


def test_p1_a_poll_in_a_child_gives_what_a_poll_in_this_process_does(desk: Desk) -> None:
    """P1: through JSON both ways, with limits on the process."""
    desk.host.commit(LOOSE, "alice")
    request = desk.request
    here = desk.poll()
    assert here.answer.candidate is not None
    assert poll_in_child(request) == here
    assert msgspec.json.decode(msgspec.json.encode(here), type=type(here)) == here


def test_p1_a_child_is_ended_with_all_that_it_started() -> None:
    """P1: at its time limit, and after it has ended by itself; the grandchild holds a pipe open while it lives."""
    _, environment = python_module("json.tool")
    for last in ("os.wait()", "pass"):
        read, write = os.pipe()
        os.set_inheritable(write, True)
        program = (
            "import os, subprocess, sys\n"
            f"subprocess.Popen(['sleep', '600'], pass_fds=[{write}])\n{last}\nsys.stdout.write('done')\n"
        )
        # sh hands the descriptor on, which is closed for every other child
        command = ["python3", "-c", program]
        try:
            limited = _with_descriptor(command, write, ProcessLimits(seconds=1.0), environment)
        finally:
            os.close(write)
        assert limited == ("late" if last == "os.wait()" else "done")
        assert os.read(read, 1) == b"", "every process that held the pipe has ended"
        os.close(read)


def _with_descriptor(command: list[str], descriptor: int, limits: ProcessLimits, environment: dict[str, str]) -> str:
    """Run a command whose program opens the pipe by the number of this process."""
    opened = f"import os\nos.dup2(os.open('/proc/{os.getpid()}/fd/{descriptor}', os.O_WRONLY), {descriptor})\n"
    opened += f"os.set_inheritable({descriptor}, True)\n"
    try:
        return run_limited([*command[:2], opened + command[2]], b"", limits, environment).decode()
    except LimitedProcessError as error:
        assert error.is_late
        return "late"


def test_p1_a_child_that_takes_too_much_memory_or_answers_too_much_or_fails_gives_a_reason() -> None:
    """P1: each is an error with a sentence; nothing of the answer is used."""
    _, environment = python_module("json.tool")
    programs = {
        "x = b'x' * (1 << 30)": "MemoryError",
        "import sys; sys.stdout.write('x' * 2_000_000)": "2,000,000 bytes",
        "import sys; sys.exit('no \\x1b[31m way')": "no",
        "open('/proc/self/fd/1', 'wb').write(b'x' * 9_000_000)": "ended with",
    }
    limits = ProcessLimits(seconds=30.0, memory_bytes=512 << 20, output_bytes=1_000_000, file_bytes=5_000_000)
    for program, reason in programs.items():
        with pytest.raises(LimitedProcessError, match=reason):
            run_limited(["python3", "-c", program], b"", limits, environment)
    assert json.loads(run_limited(["cat"], b'{"a": 1}', limits, environment)) == {"a": 1}


def test_p1_a_child_does_nothing_before_its_limits_are_set(monkeypatch: pytest.MonkeyPatch) -> None:
    """P1: also where this process is so slow that the child could have ended by then."""
    set_limit, waited = resource.prlimit, set()

    def slow(pid: int, *arguments: Any) -> tuple[int, int]:
        if pid not in waited:
            os.waitid(os.P_PID, pid, os.WEXITED | os.WSTOPPED | os.WNOWAIT)
            waited.add(pid)
        return set_limit(pid, *arguments)

    monkeypatch.setattr(resource, "prlimit", slow)
    _, environment = python_module("json.tool")
    with pytest.raises(LimitedProcessError, match="MemoryError"):
        run_limited(
            ["python3", "-c", "x = b'x' * (1 << 30)"],
            b"",
            ProcessLimits(seconds=30.0, memory_bytes=512 << 20),
            environment,
        )


def test_no_text_of_a_host_or_a_commit_has_a_control_character(desk: Desk) -> None:
    """Messages of commits are shown as printable text, shortened."""
    desk.host.commit(TIGHT | {"policies/a.yaml": "a: 1\n"}, "alice", "\x1b[2Jred \u202ealert\x07" + "x" * 900)
    candidate = desk.poll().answer.candidate
    assert candidate is not None
    (verified,) = candidate.steps[0].commits
    assert verified.subject.isprintable()
    assert len(verified.subject) <= 200
    assert printable("a\x00b\u200bc https://user:pw@host/x") == "a·b·c https://host/x"
