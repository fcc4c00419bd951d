"""git as a transport: its environment from nothing, its own bare folder, one fetch into a private name.

git does packs, TLS, SSH and ids; whatever it reports is no verdict. A fetch has succeeded when the ref was read, not
when its exit status is 0: the fetch from a shallow host ends with 0 and brings nothing.
"""

from __future__ import annotations

import os
import re
import resource
import shutil
import stat
import subprocess
import sys
from base64 import b64encode
from collections.abc import Sequence
from pathlib import Path
from shlex import quote
from time import monotonic
from typing import Final

from killswitch.source.git_objects import ObjectReader
from killswitch.source.git_problems import DamagedCloneError, GitSourceError, redacted
from killswitch.source.git_request import COMMIT_ID, GitLimits, GitSource, check_source

LEAST_GIT: Final = (2, 38)
"""The first release that knows `safe.bareRepository`."""
FIXED_GIT: Final = (2, 56, 1)
"""The release of 10 November 2026 with the fixes of CVE-2026-113408 and CVE-2026-114467."""
PATH: Final = "/usr/local/bin:/usr/bin:/bin"
INCOMING: Final = "refs/killswitch/incoming"
PREVIOUS: Final = "refs/killswitch/previous"

_CONFIG: Final = "[core]\n\trepositoryformatversion = 0\n\tfilemode = true\n\tbare = true\n"
_SETTINGS: Final[tuple[tuple[str, str], ...]] = (
    ("safe.bareRepository", "explicit"),
    ("core.hooksPath", os.devnull),
    ("core.attributesFile", os.devnull),
    ("core.excludesFile", os.devnull),
    ("core.fsmonitor", "false"),
    ("core.commitGraph", "false"),
    ("core.useReplaceRefs", "false"),
    ("core.askPass", ""),
    ("core.pager", "cat"),
    ("core.editor", "false"),
    ("advice.graftFileDeprecated", "false"),
    ("core.alternateRefsCommand", "false"),
    ("core.logAllRefUpdates", "false"),
    ("core.bigFileThreshold", "16m"),
    ("core.packedGitLimit", "256m"),
    ("core.packedGitWindowSize", "16m"),
    ("core.deltaBaseCacheLimit", "32m"),
    ("pack.threads", "1"),
    ("gc.auto", "0"),
    ("maintenance.auto", "false"),
    ("protocol.version", "2"),
    ("protocol.allow", "never"),
    ("credential.helper", ""),
    ("credential.interactive", "false"),
    ("http.followRedirects", "false"),
    ("http.sslVerify", "true"),
    ("http.proxy", ""),
    ("http.lowSpeedLimit", "500"),
    ("http.lowSpeedTime", "20"),
    ("fetch.fsckObjects", "true"),
    ("transfer.fsckObjects", "true"),
    ("fetch.unpackLimit", "1"),
    ("transfer.unpackLimit", "1"),
    ("transfer.bundleURI", "false"),
    ("transfer.credentialsInUrl", "die"),
    ("fetch.uriProtocols", ""),
    ("fetch.recurseSubmodules", "false"),
    ("submodule.recurse", "false"),
    ("fetch.writeCommitGraph", "false"),
    ("fetch.prune", "false"),
)
"""Settings that no file of a repository can overrule."""

_NOT_OURS: Final = (
    "hooks", "info", "commondir", "config.worktree", "worktrees", "modules", "refs/replace", "packed-refs",
    "objects/info", "gc.log",
)  # fmt: skip
"""What no clone of this program contains, and git would read."""

_CAUSES: Final[tuple[tuple[str, str], ...]] = (
    ("KS8011", r"No space left|Disk quota exceeded|Read-only file system"),
    ("KS8005", r"Host key verification failed|IDENTIFICATION HAS CHANGED|host key is known"),
    ("KS8001", r"No user exists for uid|cannot run ssh|remote helper .* aborted|is not a git command"),
    ("KS8004", r"could not read (?:User|Pass)|Authentication failed|Permission denied|error: 40[13]|Invalid username"),
    ("KS8015", r"error: 30\d"),
    ("KS8006", r"couldn't find remote ref|not our ref|unadvertised object|no such remote ref"),
    ("KS8010", r"fsck error|^error: object [0-9a-f]{40}: "),
    ("KS8008", r"Operation too slow|timed out|Connection timeout|less than \d+ bytes/sec"),
    (
        "KS8013",
        r"corrupt|hash mismatch|loose object|object file|bad object|bad ref|index file .* is|packfile ",
    ),
    (
        "KS8012",
        r"did not send all necessary|unresolved delta|missing (?:blob|tree|commit)|[Cc]ould not read [0-9a-f]{40}"
        r"|bad pack header",  # the host found out that it lacks an object after it had begun to send
    ),
)
"""Code → what git, curl or ssh write in the C locale; the first that is found counts."""


class GitClone:
    """The copy of a repository, in a bare folder of the runner's own that holds nothing which git would run."""

    def __init__(self, source: GitSource, limits: GitLimits) -> None:
        self._source = source
        self._limits = limits
        self._protocol = check_source(source)
        self._folder = Path(source.folder)
        self._home = self._folder / "home"
        self._secrets: tuple[str, ...] = ()
        self._name = "repository.git"
        self._is_fresh = False

    @property
    def home(self) -> Path:
        """The folder that programs get as home: empty but for what this package wrote."""
        return self._home

    def prepare(self) -> tuple[str, ...]:
        """Make the folder and the settings, and return notes on the version of git. GitSourceError if it cannot run."""
        try:
            for folder in (self._folder, self._home):
                folder.mkdir(mode=0o700, parents=True, exist_ok=True)
                folder.chmod(0o700)
                if folder.stat().st_uid != os.geteuid():
                    raise GitSourceError("KS8011", f"the folder {folder} belongs to another user")
            self._write_settings()
            note = self._version_note()
            self._prepare_repository()
        except OSError as error:
            where = error.filename or self._folder
            raise GitSourceError("KS8011", f"{where} cannot be written: {error.strerror}") from None
        return note

    def start_again(self) -> None:
        """Fetch into an empty folder next to the present one, which stays until `keep`."""
        self._name, self._is_fresh = "fresh.git", True
        try:
            shutil.rmtree(self._repository, ignore_errors=True)
            self._prepare_repository()
        except OSError as error:
            raise GitSourceError("KS8011", f"{self._repository} cannot be written: {error.strerror}") from None

    def keep(self) -> None:
        """Keep what was fetched, for the next poll to fetch only what is new."""
        incoming, previous = self._repository / INCOMING, self._repository / PREVIOUS
        try:
            incoming.replace(previous)
            if self._is_fresh:
                final = self._folder / "repository.git"
                shutil.rmtree(final, ignore_errors=True)
                self._repository.rename(final)
                self._name, self._is_fresh = "repository.git", False
        except OSError:
            return  # the next poll fetches it again

    def fetch(self) -> str:
        """Fetch the ref; the id of the object that it names at the host. GitSourceError if it could not be read."""
        incoming = self._repository / INCOMING
        refspec = f"+{self._source.ref}:{INCOMING}"
        arguments = (
            "fetch", "--quiet", "--no-tags", "--no-recurse-submodules", "--no-write-fetch-head",
            "--no-auto-maintenance", "--no-show-forced-updates", "--no-write-commit-graph", "--refmap=", "--no-prune",
            "--", self._source.url, refspec,
        )  # fmt: skip
        try:
            incoming.unlink(missing_ok=True)
            status, errors = self._run(arguments, self._limits.fetch_seconds)
            found = incoming.read_text(encoding="ascii").strip() if incoming.is_file() else ""
        except (OSError, UnicodeDecodeError) as error:
            raise GitSourceError("KS8011", f"the copy cannot be written: {error}") from None
        if status == 0 and COMMIT_ID.fullmatch(found):
            return found
        raise self._fetch_error(status, errors)

    def reader(self) -> ObjectReader:
        """A reader of the objects of this clone."""
        return ObjectReader(self._command, self._environment())

    @property
    def _repository(self) -> Path:
        return self._folder / self._name

    @property
    def _command(self) -> list[str]:
        return ["git", f"--git-dir={self._repository}", "--no-replace-objects", "--no-pager"]

    def _fetch_error(self, status: int, errors: str) -> GitSourceError:
        written = redacted(errors, self._secrets).splitlines()
        lines = [line.strip() for line in written if line.strip() and not line.startswith(_NOISE)]
        text = "\n".join(lines)
        last = "; ".join(lines[:3]) or f"git ended with {status}"
        if status == 0:
            cause = "its history is shallow" if "shallow" in text else "git reports no error"
            return GitSourceError("KS8007", f"the host did not deliver {self._source.ref}: {cause}")
        if status == _TIMED_OUT:
            return GitSourceError("KS8008", f"the host did not answer within {self._limits.fetch_seconds:g} s")
        if self._is_full():
            return GitSourceError("KS8009", f"the fetch is larger than {self._limits.fetched_bytes:,} bytes")
        code = next((code for code, pattern in _CAUSES if re.search(pattern, text, re.MULTILINE)), "KS8003")
        if code == "KS8006":
            last = f"the host has no {self._source.ref}"
        if code == "KS8013" and self._is_fresh:
            code = "KS8012"  # an empty copy cannot be the damaged one
        return (DamagedCloneError if code in ("KS8013", "KS8012") else GitSourceError)(code, last)

    def _is_full(self) -> bool:
        """Whether git was ended at the size limit: it leaves the pack that it wrote, cut off there."""
        left = self._repository.glob("objects/pack/tmp_*")
        return any(file.stat().st_size >= self._limits.fetched_bytes for file in left)

    def _run(self, arguments: Sequence[str], seconds: float) -> tuple[int, str]:
        """The exit status and the first errors of a command of git; -1000 if it did not end in time."""
        with open(os.memfd_create("errors", os.MFD_CLOEXEC), "w+b") as errors:  # noqa: PTH123 # a descriptor is no path
            process = subprocess.Popen(
                [*self._command, *arguments], stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=errors,
                env=self._environment(), cwd=self._home,
            )  # fmt: skip
            most = self._limits.fetched_bytes
            resource.prlimit(process.pid, resource.RLIMIT_FSIZE, (most, most))
            status = _wait(process, seconds)
            errors.seek(0)
            text = errors.read(64 << 10).decode(errors="replace")
        return status, text

    def _environment(self) -> dict[str, str]:
        home = str(self._home)
        settings = [*_SETTINGS, (f"protocol.{self._protocol}.allow", "always")]
        environment = {
            "PATH": PATH,
            "HOME": home,
            "XDG_CONFIG_HOME": home,
            "GNUPGHOME": home,
            "LC_ALL": "C",
            "TZ": "UTC",
            "GIT_CONFIG_NOSYSTEM": "1",
            "GIT_CONFIG_GLOBAL": str(self._home / "gitconfig"),
            "GIT_ATTR_NOSYSTEM": "1",
            "GIT_TERMINAL_PROMPT": "0",
            "GIT_ALLOW_PROTOCOL": self._protocol,
            "GIT_PROTOCOL_FROM_USER": "0",
            "GIT_NO_REPLACE_OBJECTS": "1",
            "GIT_NO_LAZY_FETCH": "1",
            "GIT_OPTIONAL_LOCKS": "0",
            "GIT_GRAFT_FILE": os.devnull,
            "GIT_PAGER": "cat",
            "GIT_EDITOR": "false",
            "GIT_SSH_VARIANT": "ssh",
            "GIT_SSH_COMMAND": quote(str(self._home / "ssh")),
            "GIT_CONFIG_COUNT": str(len(settings)),
        }
        for index, (key, value) in enumerate(settings):
            environment |= {f"GIT_CONFIG_KEY_{index}": key, f"GIT_CONFIG_VALUE_{index}": value}
        return environment

    def _write_settings(self) -> None:
        """Write the settings with secrets, which only this user reads, and what starts ssh."""
        lines = ["[core]\n\thooksPath = /dev/null\n\tfsmonitor = false\n"]
        if self._source.credentials is not None and self._protocol == "https":
            login = _secret(self._source.credentials)
            if ":" not in login:
                raise GitSourceError("KS8014", f"{self._source.credentials} does not hold one line `user:token`")
            basic = b64encode(login.encode()).decode()
            self._secrets = (login, login.partition(":")[2], basic)
            lines.append(f'[http "{self._source.url}"]\n\textraHeader = Authorization: Basic {basic}\n')
        if self._source.ca_file is not None:
            lines.append(f"[http]\n\tsslCAInfo = {_quoted_path(self._source.ca_file)}\n")
        _write(self._home / "gitconfig", "".join(lines), 0o600)
        if self._protocol == "ssh":
            self._write_ssh()

    def _write_ssh(self) -> None:
        if self._source.known_hosts is None:
            raise GitSourceError("KS8005", "no `known_hosts` file is named, so that no host is accepted")
        identity = "none" if self._source.ssh_key is None else _quoted_path(self._source.ssh_key)
        options = (
            "BatchMode yes", "StrictHostKeyChecking yes",
            f"UserKnownHostsFile {_quoted_path(self._source.known_hosts)}",
            "GlobalKnownHostsFile /dev/null", "KnownHostsCommand none", "UpdateHostKeys no", "CanonicalizeHostname no",
            f"IdentityFile {identity}", "IdentitiesOnly yes", "IdentityAgent none", "PasswordAuthentication no",
            "KbdInteractiveAuthentication no", "GSSAPIAuthentication no", "ForwardAgent no", "ForwardX11 no",
            "ClearAllForwardings yes", "PermitLocalCommand no", "ProxyCommand none", "ControlMaster no",
            "ControlPath none", "ConnectTimeout 15", "ServerAliveInterval 10", "ServerAliveCountMax 2",
            "LogLevel ERROR",
        )  # fmt: skip
        _write(self._home / "ssh_config", "".join(f"{option}\n" for option in options), 0o600)
        program = (
            f"#!{sys.executable} -IS\nimport os, sys\n"
            f'os.execvp("ssh", ["ssh", "-F", {str(self._home / "ssh_config")!r}, *sys.argv[1:]])\n'
        )
        _write(self._home / "ssh", program, 0o700)

    def _version_note(self) -> tuple[str, ...]:
        try:
            done = subprocess.run(
                ["git", "version"], env=self._environment(), capture_output=True, text=True, timeout=10, check=False
            )
        except (OSError, subprocess.TimeoutExpired):
            raise GitSourceError("KS8001", f"git cannot be started from {PATH}") from None
        found = re.match(r"git version (\d+)\.(\d+)(?:\.(\d+))?", done.stdout)
        version = tuple(int(part or 0) for part in found.groups()) if found else ()
        if version < LEAST_GIT:
            raise GitSourceError("KS8001", f"{done.stdout.strip() or 'git'} is older than 2.38")
        if version >= FIXED_GIT:
            return ()
        name, fixed = ".".join(map(str, version)), ".".join(map(str, FIXED_GIT))
        return (
            f"git {name} is older than {fixed}, the release with the fixes of 10 November 2026; its version "
            "does not show whether the distribution has ported them back",
        )

    def _prepare_repository(self) -> None:
        """Make the bare folder; remove from an existing one whatever git would read or run and this program did not
        write."""
        where = self._repository
        packs = sum(1 for _ in where.glob("objects/pack/*.pack"))
        if (where / "shallow").exists() or packs > _MOST_PACKS or _size(where) > self._limits.clone_bytes:
            shutil.rmtree(where)
        for name in _NOT_OURS:
            _remove(where / name)
        for left_over in (
            *where.glob("objects/pack/tmp_*"),
            *where.glob("objects/pack/.tmp*"),
            *where.glob("**/*.lock"),
        ):
            _remove(left_over)
        for folder in ("objects/pack", "refs/killswitch"):
            (where / folder).mkdir(mode=0o700, parents=True, exist_ok=True)
        _write(where / "HEAD", "ref: refs/heads/none\n", 0o600)
        _write(where / "config", _CONFIG, 0o600)


_NOISE: Final = ("remote:", "hint:", "Please make sure", "and the repository exists", "Warning: Permanently")
"""Lines that name no cause, or that are a host's own words."""
_TIMED_OUT: Final = -1000
_MOST_PACKS: Final = 300
"""Fetches after which the copy is made again, in one pack: git looks into each of them for each object."""


def _wait(process: subprocess.Popen[bytes], seconds: float) -> int:
    """The exit status; `_TIMED_OUT` of a process that is ended for it."""
    until = monotonic() + seconds
    try:
        return process.wait(until - monotonic())
    except subprocess.TimeoutExpired:
        process.terminate()  # git ends what it started
        try:
            process.wait(2)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        return _TIMED_OUT


def _secret(file: str) -> str:
    try:
        content = Path(file).read_bytes()[:4096].decode().strip()
    except (OSError, UnicodeDecodeError):
        raise GitSourceError("KS8014", f"the secret file {file} cannot be read") from None
    if not content.isprintable():
        raise GitSourceError("KS8014", f"the secret file {file} does not hold one line")
    return content


def _quoted_path(path: str) -> str:
    """The path for the configuration of git and ssh, which read `%` and `$` inside of quotes."""
    if re.search(r'["\\%$\x00-\x1f\x7f]', path):
        raise GitSourceError(
            "KS8002", "the path of a key, certificate or known_hosts file has a character that ssh expands"
        )
    return f'"{path}"'


def _write(file: Path, text: str, mode: int) -> None:
    """Replace a file, never through a link."""
    new = file.with_name(f".{file.name}.new")
    _remove(new)
    descriptor = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, mode)
    with open(descriptor, "w", encoding="utf-8") as stream:  # noqa: PTH123 # a descriptor is no path
        stream.write(text)
    new.replace(file)


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def _size(folder: Path) -> int:
    """Bytes of all files below; 0 where there is none."""
    return sum(found.st_size for file in folder.rglob("*") if stat.S_ISREG((found := file.lstat()).st_mode))
