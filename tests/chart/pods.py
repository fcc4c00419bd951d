"""Runs a pod's container as a local process: its mounts as folders, projected as a node does, and its command.

Every path of the container is below a folder of its own. Everything else is as the API server returns it: arguments,
variables, contents of ConfigMaps and Secrets, and writable mounts.
"""

from __future__ import annotations

import base64
import os
import re
import shlex
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tests.chart.conftest import Cluster
from tests.e2e.processes import KSCTL, WAIT_LIMIT

_PATH = re.compile(r'(?P<before>^|=|file:|= ")(?P<path>/(?:etc|var|run|tmp)(?:/|$))')


class Pod:
    """The only container of a pod at the API server."""

    def __init__(self, cluster: Cluster, namespace: str, name: str, root: Path) -> None:
        self._cluster = cluster
        self._namespace = namespace
        self.root = root
        self.spec: Any = cluster.get(f"pod/{name}", namespace)["spec"]
        (self.container,) = self.spec["containers"]
        self._make_mounts()

    def at(self, path: str) -> Path:
        """The local path of a path in the container."""
        return self.root / path.removeprefix("/")

    @property
    def writable(self) -> tuple[Path, ...]:
        """The folders that the container may write to."""
        return tuple(self.at(each["mountPath"]) for each in self.container["volumeMounts"] if not each.get("readOnly"))

    @property
    def environment(self) -> dict[str, str]:
        """The container's variables; those from Secrets with the values of the API server."""
        found = {}
        for each in self.container["env"]:
            reference = each.get("valueFrom", {}).get("secretKeyRef")
            value = each["value"] if reference is None else self._secret(reference["name"])[reference["key"]].decode()
            found[each["name"]] = self._localize(value)
        return found

    @contextmanager
    def running(self, *, read_only_root: bool = False) -> Iterator[subprocess.Popen[str]]:
        """Start the container's command; kill it at the end if it still runs."""
        command = self._command([*self.container["command"], *self.container["args"]])
        if read_only_root:
            command = within_read_only_root(command, self.writable)
        with subprocess.Popen(
            command, env=self._process_environment(), cwd=self.at("/tmp"), text=True,
            stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        ) as process:  # fmt: skip
            try:
                yield process
            finally:
                if process.poll() is None:
                    process.kill()

    def probe(self, name: str) -> subprocess.CompletedProcess[str]:
        """Run a probe's command."""
        command = self._command(self.container[name]["exec"]["command"])
        return subprocess.run(
            command, env=self._process_environment(), capture_output=True, text=True, timeout=WAIT_LIMIT, check=False
        )

    def _command(self, arguments: Sequence[str]) -> list[str]:
        assert arguments[0] == "ksctl"
        return [*KSCTL, *(self._localize(argument) for argument in arguments[1:])]

    def _process_environment(self) -> dict[str, str]:
        return {"PATH": os.environ["PATH"], **self.environment}

    def _localize(self, text: str) -> str:
        return _PATH.sub(lambda found: f"{found['before']}{self.root}{found['path']}", text)

    def _make_mounts(self) -> None:
        volumes = {each["name"]: each for each in self.spec["volumes"]}
        for mount in self.container["volumeMounts"]:
            volume, folder = volumes[mount["name"]], self.at(mount["mountPath"])
            if "configMap" in volume:
                data = self._cluster.get(f"configmap/{volume['configMap']['name']}", self._namespace)["data"]
                project({name: self._localize(text).encode() for name, text in data.items()}, folder, 0o644)
            elif "secret" in volume:
                secret = volume["secret"]
                data = self._secret(secret["secretName"])
                named = secret.get("items") or [{"key": name, "path": name} for name in data]
                wanted = {each["key"]: each["path"] for each in named}
                project({path: data[key] for key, path in wanted.items()}, folder, secret["defaultMode"])
            else:
                assert volume.keys() & {"emptyDir", "persistentVolumeClaim"}, volume
                folder.mkdir(parents=True)

    def _secret(self, name: str) -> dict[str, bytes]:
        data = self._cluster.get(f"secret/{name}", self._namespace)["data"]
        return {key: base64.b64decode(value) for key, value in data.items()}


def project(files: Mapping[str, bytes], folder: Path, mode: int) -> None:
    """Write files as a node projects them: in a dated folder, behind a link that is replaced at a change."""
    dated = folder / "..2024_01_01_00_00_00.123456789"
    dated.mkdir(parents=True)
    (folder / "..data").symlink_to(dated.name)
    for name, content in files.items():
        (dated / name).write_bytes(content)
        (dated / name).chmod(mode)
        (folder / name).symlink_to(f"..data/{name}")
    folder.chmod(0o555)


def within_read_only_root(command: Sequence[str], writable: Sequence[Path]) -> list[str]:
    """`command` in its own mount namespace, where the root file system is read-only except for `writable`."""
    kept = "".join(f"mount --bind {shlex.quote(str(each))} {shlex.quote(str(each))} && " for each in writable)
    first = "" if os.geteuid() == 0 else "--user --map-root-user "
    inner = f'{kept}mount -o remount,bind,ro / && cd "$PWD" && exec "$@"'
    return ["/bin/sh", "-c", f'exec unshare {first}--mount /bin/sh -c {shlex.quote(inner)} sh "$@"', "sh", *command]
