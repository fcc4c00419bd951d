"""Objects that the chart renders, and values that it refuses with a message."""

from __future__ import annotations

import json
import re
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import yaml  # type: ignore[import-untyped]  # it ships no types
from click import Command
from click.testing import CliRunner
from kubernetes_validate import utils as kubernetes  # type: ignore[import-untyped,unused-ignore]  # it ships no types, and is not always installed

from killswitch.cli.live.run import run
from killswitch.cli.live.run_outputs import declared_retention
from killswitch.cli.live.serve import serve
from killswitch.cli.live.status import status
from killswitch.cli.operate.deadman import watch
from killswitch.cli.policy.verbs import validate
from killswitch.runner.loop import REREAD_WITHIN, RunnerPace
from killswitch.runner.notify import reports
from killswitch.telemetry import background_writer, provider
from tests.chart.conftest import Helm

VALUES = ("files", "live", "volume", "scratch", "source", "desk")


@pytest.fixture(scope="module", params=VALUES)
def values(request: pytest.FixtureRequest, chart: Path) -> Path:
    """The example values, one file for each run."""
    return chart / "ci" / f"{request.param}-values.yaml"


def example(helm: Helm, name: str, *more: str) -> dict[str, Any]:
    """Kind → object of the runner, rendered from an example."""
    found = helm.template("-f", str(helm.chart / "ci" / f"{name}-values.yaml"), *more)
    return {each["kind"]: each for each in found if not each["metadata"]["name"].endswith("-watcher")}


def workloads(helm: Helm, values: Path) -> list[Any]:
    """The StatefulSets of an example, the runner first."""
    found = [each for each in helm.template("-f", str(values)) if each["kind"] == "StatefulSet"]
    return sorted(found, key=lambda each: str(each["metadata"]["name"]))


def pod(helm: Helm, name: str, *more: str) -> Any:
    """The pod's spec of an example."""
    return example(helm, name, *more)["StatefulSet"]["spec"]["template"]["spec"]


def test_every_example_is_used(chart: Path) -> None:
    """The tests render every file of values in `ci`."""
    assert {path.name for path in (chart / "ci").iterdir()} == {f"{name}-values.yaml" for name in VALUES}


def test_lint_finds_nothing(helm: Helm, values: Path) -> None:
    """`helm lint --strict` reports no failure and no warning."""
    output = helm.run("lint", "--strict", str(helm.chart), "-f", str(values))
    assert "0 chart(s) failed" in output
    assert "WARNING" not in output


def test_every_object_is_valid_in_every_known_version_of_kubernetes(helm: Helm, values: Path) -> None:
    """Validated strictly, so that a misspelt field is found, in at least ten versions."""
    objects = helm.template("-f", str(values))
    versions = sorted(set(map(kubernetes.major_minor, kubernetes.all_versions())))
    assert len(versions) >= 10
    for version in versions:
        for each in objects:
            kubernetes.validate(each, version, strict=True)


def test_there_is_one_runner(helm: Helm, values: Path) -> None:
    """A StatefulSet of one pod with any values, where nothing but the server listens; no Deployment and no Job."""
    kinds = {each["kind"] for each in helm.template("-f", str(values))}
    expected = {"ConfigMap", "NetworkPolicy", "PodDisruptionBudget", "Service", "ServiceAccount", "StatefulSet"}
    assert kinds <= expected
    found = workloads(helm, values)
    assert [each["spec"]["replicas"] for each in found] == [1] * len(found)
    containers = [each for it in found for each in it["spec"]["template"]["spec"]["containers"]]
    assert [each["name"] for each in containers].count("runner") == 1
    assert {each["name"] for each in containers if "ports" in each} <= {"server"}
    assert all("initContainers" not in each["spec"]["template"]["spec"] for each in found)


def test_every_pod_meets_the_restricted_standard(helm: Helm, values: Path) -> None:
    """Kubernetes' restricted Pod Security Standard, a read-only root, and no token of the cluster."""
    for each in workloads(helm, values):
        spec = each["spec"]["template"]["spec"]
        require_restricted_pod(spec)
        for container in spec["containers"]:
            require_restricted_container(container)


def require_restricted_pod(spec: Any) -> None:
    """Fails unless the pod has no token of the cluster and shares no namespace of its node."""
    assert spec["automountServiceAccountToken"] is False
    assert spec["enableServiceLinks"] is False
    assert spec["securityContext"]["runAsNonRoot"] is True
    assert spec["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert {"hostNetwork", "hostPID", "hostIPC"} & spec.keys() == set()


def require_restricted_container(container: Any) -> None:
    """Fails unless the container is unprivileged, with a read-only root and a limit of memory."""
    assert container["securityContext"] == {
        "runAsNonRoot": True, "readOnlyRootFilesystem": True, "allowPrivilegeEscalation": False, "privileged": False,
        "capabilities": {"drop": ["ALL"]}, "seccompProfile": {"type": "RuntimeDefault"},
    }  # fmt: skip
    assert container["resources"]["limits"]["memory"]
    assert "cpu" not in container["resources"]["limits"]


def test_every_mount_has_its_volume_and_every_volume_its_mount(helm: Helm, values: Path) -> None:
    """Policies, credentials and tokens are mounted read-only; what the server reads of the locks, too."""
    for each in workloads(helm, values):
        spec = each["spec"]["template"]["spec"]
        claims = [it["metadata"]["name"] for it in each["spec"].get("volumeClaimTemplates", ())]
        mounts = {it["name"]: it for container in spec["containers"] for it in container["volumeMounts"]}
        assert sorted([*claims, *(it["name"] for it in spec["volumes"])]) == sorted(mounts)
        assert {"store", "tmp"} <= mounts.keys()
        assert {"policies", "source"} & mounts.keys()
        for container in spec["containers"]:
            for mount in container["volumeMounts"]:
                is_server_lock = container["name"] == "server" and mount["name"] == "locks"
                read_only = not mount["name"].startswith(("store", "tmp", "locks", "spool")) or is_server_lock
                assert mount.get("readOnly", False) is read_only, mount["name"]


def test_the_server_has_the_store_and_no_credential_of_a_venue(helm: Helm) -> None:
    """It listens with TLS, answers to the names of its Service, and reads tokens from a Secret."""
    _, server = pod(helm, "desk")["containers"]
    assert [each["name"] for each in server["volumeMounts"]] == ["store", "tmp", "server-tokens", "server-tls", "locks"]
    assert {each["name"] for each in server["env"]} == {"HOME", "TMPDIR", "XDG_CACHE_HOME"}
    assert server["args"] == [
        "serve", "--store=/var/lib/killswitch/store.sqlite", "--tokens=/etc/killswitch/tokens/tokens.json",
        "--listen=0.0.0.0:8600", "--host-name=killswitch.example.com", "--host-name=ks-killswitch-server:8600",
        "--host-name=ks-killswitch-server.trading.svc:8600",
        "--tls-certificate=/etc/killswitch/tls/tls.crt", "--tls-key=/etc/killswitch/tls/tls.key",
    ]  # fmt: skip
    assert server["readinessProbe"]["httpGet"]["scheme"] == "HTTPS"
    service = example(helm, "desk")["Service"]["spec"]
    labels = example(helm, "desk")["StatefulSet"]["spec"]["template"]["metadata"]["labels"]
    assert service["selector"].items() <= labels.items()
    (port,) = service["ports"]
    assert (port["port"], port["targetPort"]) == (8600, server["ports"][0]["name"])
    policy = example(helm, "desk")["NetworkPolicy"]["spec"]
    assert policy["ingress"] == [
        {"ports": [{"protocol": "TCP", "port": 8600}],
         "from": [{"namespaceSelector": {"matchLabels": {"team": "trading"}}}]}
    ]  # fmt: skip


def test_the_watcher_shares_neither_node_nor_store_nor_key_with_the_runner(helm: Helm) -> None:
    """And no selector of one finds the pod of the other, so that neither is counted or replaced for it."""
    runner, watcher = workloads(helm, helm.chart / "ci" / "desk-values.yaml")
    ours, theirs = (each["spec"]["selector"]["matchLabels"] for each in (runner, watcher))
    assert not ours.items() <= watcher["spec"]["template"]["metadata"]["labels"].items()
    assert not theirs.items() <= runner["spec"]["template"]["metadata"]["labels"].items()
    spec = watcher["spec"]["template"]["spec"]
    (rule,) = spec["affinity"]["podAntiAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"]
    assert (rule["topologyKey"], rule["labelSelector"]["matchLabels"]) == ("kubernetes.io/hostname", ours)
    (container,) = spec["containers"]
    assert container["args"] == [
        "deadman", "watch", "--policies=/etc/killswitch/policies", "--store=/var/lib/killswitch/watcher.sqlite",
        "--interval=5s", "--read-timeout=5s", "--live", "--lock-dir=/var/lib/killswitch-locks/watcher",
    ]  # fmt: skip
    secrets = {each["name"]: each["secret"]["secretName"] for each in spec["volumes"] if "secret" in each}
    assert secrets == {"credentials-0": "binance-watcher"}
    mounts = {each["name"]: each["mountPath"] for each in container["volumeMounts"]}
    assert mounts["credentials-0"] == "/run/secrets/binance-main", "the name that the documents have"


def test_credentials_are_mounted_or_referred_to_and_never_inline(helm: Helm) -> None:
    """Files below /run/secrets by the Secret's name, variables by secretKeyRef; the chart creates no Secret."""
    spec = pod(helm, "live")
    volumes = {each["name"]: each.get("secret") for each in spec["volumes"]}
    assert volumes["credentials-0"] == {
        "secretName": "binance-main", "defaultMode": 0o440,
        "items": [{"key": "key", "path": "key"}, {"key": "secret", "path": "secret"}],
    }  # fmt: skip
    assert volumes["credentials-1"] == {"secretName": "risk-desk", "defaultMode": 0o440}
    mounts = {each["name"]: each["mountPath"] for each in spec["containers"][0]["volumeMounts"]}
    assert mounts["credentials-0"] == "/run/secrets/binance-main"
    assert mounts["credentials-1"] == "/run/secrets/risk-desk"
    variables = {each["name"]: each for each in spec["containers"][0]["env"]}
    assert variables["OTEL_EXPORTER_OTLP_HEADERS"] == {
        "name": "OTEL_EXPORTER_OTLP_HEADERS", "valueFrom": {"secretKeyRef": {"name": "collector", "key": "headers"}}
    }  # fmt: skip
    assert variables["OTEL_EXPORTER_OTLP_ENDPOINT"]["value"] == "http://collector.observability:4318"


def test_nothing_is_armed_without_live(helm: Helm) -> None:
    """The first of the two keys: the pod has `--live` only with `live: true`."""
    assert "--live" not in pod(helm, "files")["containers"][0]["args"]
    assert pod(helm, "live")["containers"][0]["args"] == [
        "run", "--policies=/etc/killswitch/policies", "--store=/var/lib/killswitch/store.sqlite", "--interval=500ms",
        "--read-timeout=5s", "--live", "--lock-dir=/var/lib/killswitch-locks",
        "--lock-file=/var/lib/killswitch-locks/trading_lock.json",
        "--retain=/etc/killswitch/retention/retention.toml", "--events", "/var/spool/killswitch/events.jsonl",
    ]  # fmt: skip


def test_the_commands_of_the_container_are_commands_of_ksctl(helm: Helm, values: Path, tmp_path: Path) -> None:
    """Otherwise an unknown or renamed option would first fail in the cluster."""
    found = {
        each["name"]: each for it in workloads(helm, values) for each in it["spec"]["template"]["spec"]["containers"]
    }
    for name, container in found.items():
        assert container["command"] == ["ksctl"]
        arguments = [each.replace("/etc/killswitch/policies", str(tmp_path)) for each in container["args"]]
        command, begins = COMMANDS[name]
        assert tuple(arguments[: len(begins)]) == begins
        with command.make_context(name, arguments[len(begins) :]):
            pass
    container = found["runner"]
    probes = [container[name] for name in ("startupProbe", "livenessProbe", "readinessProbe") if name in container]
    assert probes
    for probe in probes:
        ksctl, verb, *options = probe["exec"]["command"]
        assert (ksctl, verb) == ("ksctl", "status")
        with status.make_context("status", options) as context:
            assert context.params["probe"] in ("live", "ready")


def test_the_liveness_probe_has_a_longer_limit_than_the_readiness_probe(helm: Helm) -> None:
    """The probe that kills a process needs stronger evidence than the one that only shows its state."""
    container = pod(helm, "live")["containers"][0]
    assert container["livenessProbe"]["exec"]["command"][-2:] == ["--probe=live", "--within=2m"]
    assert container["readinessProbe"]["exec"]["command"][-2:] == ["--probe=ready", "--within=15s"]
    startup = container["startupProbe"]
    assert startup["exec"]["command"][-1] == "--probe=live"
    assert startup["periodSeconds"] * startup["failureThreshold"] == 300


COMMANDS: dict[str, tuple[Command, tuple[str, ...]]] = {
    "runner": (run, ("run",)), "server": (serve, ("serve",)), "watcher": (watch, ("deadman", "watch")),
}  # fmt: skip
"""Container → its command, and the arguments that name it."""

SINKS = 4
"""Recording, events, stdout and stderr."""


def test_the_grace_period_is_longer_than_the_longest_stop(helm: Helm, chart: Path) -> None:
    """The running tick, running requests, notifications, sinks, telemetry and reports, one after the other."""
    pace = RunnerPace(interval=1.0, read_timeout=5.0)
    longest = (
        pace.read_timeout + REREAD_WITHIN + 2 * pace.stop_timeout
        + SINKS * background_writer.CLOSE_TIMEOUT + provider.SHUTDOWN_TIMEOUT + reports.STOP_TIMEOUT
    )  # fmt: skip
    assert pod(helm, "files")["terminationGracePeriodSeconds"] == 60
    assert longest < 60
    schema = json.loads((chart / "values.schema.json").read_text(encoding="utf-8"))
    assert schema["properties"]["terminationGracePeriodSeconds"]["minimum"] >= longest


def test_the_config_map_holds_the_policies_as_they_were_written(helm: Helm, chart: Path, tmp_path: Path) -> None:
    """The texts are identical, and `ksctl validate` accepts them."""
    written = yaml.safe_load((chart / "ci" / "files-values.yaml").read_text(encoding="utf-8"))["policies"]["files"]
    data = example(helm, "files")["ConfigMap"]["data"]
    assert data == written
    for name, text in data.items():
        (tmp_path / name).write_text(text, encoding="utf-8")
    checked = CliRunner().invoke(validate, [str(tmp_path)])
    assert checked.exit_code == 0, checked.output


def test_a_changed_policy_rolls_the_pod_and_an_unchanged_one_does_not(helm: Helm) -> None:
    """The checksum in the pod's annotations changes with the policies only."""

    def checksum(*more: str) -> str:
        runner = example(helm, "files", *more)["StatefulSet"]
        return str(runner["spec"]["template"]["metadata"]["annotations"]["checksum/policies"])

    assert re.fullmatch("[0-9a-f]{64}", checksum())
    assert checksum() == checksum("--set", "nameOverride=other")
    assert checksum() != checksum("--set", r"policies.files.more\.yaml=# nothing")


def test_the_declared_retention_is_that_of_the_run(helm: Helm, chart: Path, tmp_path: Path) -> None:
    """The text is identical, `ksctl run --retain` accepts it, and a change of it rolls the pod."""
    written = yaml.safe_load((chart / "ci" / "live-values.yaml").read_text(encoding="utf-8"))["retention"]["declared"]
    found = example(helm, "live")
    config = found["ConfigMap"]
    assert (config["metadata"]["name"], config["data"]) == ("ks-killswitch-retention", {"retention.toml": written})
    (volume,) = [each for each in pod(helm, "live")["volumes"] if each["name"] == "retention"]
    assert volume["configMap"] == {"name": "ks-killswitch-retention"}
    (tmp_path / "retention.toml").write_text(written)
    declared = declared_retention(tmp_path / "retention.toml", None)
    assert declared is not None and declared.settings.interval == timedelta(days=1)
    assert declared.settings.store is not None and declared.settings.store.archive == "/var/lib/killswitch/audit"

    def checksum(*more: str) -> str:
        runner = example(helm, "live", *more)["StatefulSet"]
        return str(runner["spec"]["template"]["metadata"]["annotations"]["checksum/retention"])

    assert checksum() != checksum("--set", r'retention.declared=every = "2d"')
    assert "retention" not in json.dumps(pod(helm, "files")), "nothing is removed unless it is declared"


def test_policies_come_from_the_configured_volume(helm: Helm) -> None:
    """A ConfigMap, a claim or any volume of the user; the chart then creates no ConfigMap."""
    for name, source in (
        ("live", {"configMap": {"name": "risk-policies"}}),
        ("volume", {"persistentVolumeClaim": {"claimName": "policies", "readOnly": True}}),
        ("scratch", {"nfs": {"server": "files.example.com", "path": "/policies", "readOnly": True}}),
    ):
        found = helm.template("-f", str(helm.chart / "ci" / f"{name}-values.yaml"))
        assert "ks-killswitch-policies" not in [each["metadata"]["name"] for each in found]
        (volume,) = [each for each in pod(helm, name)["volumes"] if each["name"] == "policies"]
        assert {key: value for key, value in volume.items() if key != "name"} == source


def test_the_network_policy_allows_no_ingress_and_only_configured_egress(helm: Helm) -> None:
    """Egress to DNS, to the venues, and by rules of the user."""
    rules = example(helm, "live")["NetworkPolicy"]["spec"]
    assert rules["ingress"] == []
    assert rules["policyTypes"] == ["Ingress", "Egress"]
    dns, venues, collector = rules["egress"]
    assert dns["ports"] == [{"protocol": "UDP", "port": 53}, {"protocol": "TCP", "port": 53}]
    assert venues == {
        "ports": [{"protocol": "TCP", "port": 443}, {"protocol": "TCP", "port": 9443}],
        "to": [{"ipBlock": {"cidr": "192.0.2.0/24"}}],
    }  # fmt: skip
    assert collector["ports"] == [{"protocol": "TCP", "port": 4318}]
    anywhere = example(helm, "volume")["NetworkPolicy"]["spec"]["egress"]
    assert anywhere[1] == {"ports": [{"protocol": "TCP", "port": 443}]}


def test_the_disruption_budget_has_the_newest_version_of_the_cluster(helm: Helm) -> None:
    """Offline that is policy/v1; `test_cluster.py` tests the API server of an old cluster."""
    budget = example(helm, "live")["PodDisruptionBudget"]
    assert (budget["apiVersion"], budget["spec"]["maxUnavailable"]) == ("policy/v1", 0)


REFUSED = [
    ("replicas=2", "additional properties 'replicas' not allowed"),
    ('retention.declared=every = "1d"\n[store]\narchive = "audit"',
     "retention.declared: a path in it is relative, to a folder that cannot be written"),
    ('retention.declared=every = "1d"\n[store]\narchive = "/tmp/audit"',
     "retention.declared: the archive is in /tmp, which is lost with the pod"),
    ('retention.declared=[store]\narchive = "/var/lib/killswitch/audit"',
     'retention.declared: it does not say how often. Add a line such as every = "1d"'),
    ("retention.keep=1d", "at '/retention': additional properties 'keep' not allowed"),
    ("extraArgs[0]=--retain=x", "extraArgs: --retain has a value of its own"),
    ("store.kind=postgres", "at '/store/kind': value must be one of 'claim', 'emptyDir'"),
    ("credentials.env[0].name=KEY,credentials.env[0].secret=s,credentials.env[0].key=k,credentials.env[0].value=hunter2",
     "at '/credentials/env/0': additional properties 'value' not allowed"),
    ("credentials.key=hunter2", "at '/credentials': additional properties 'key' not allowed"),
    ("telemetry.headers=hunter2", "at '/telemetry': additional properties 'headers' not allowed"),
    ("telemetry.endpoint=http://user:hunter2@collector:4318", "telemetry.endpoint: a user, a password or a query"),
    ("telemetry.env.OTEL_EXPORTER_OTLP_HEADERS=a=hunter2",
     "telemetry.env: OTEL_EXPORTER_OTLP_HEADERS holds keys. Take it from a Secret: credentials.env"),
    (r"policies.files.account\.yaml=spec: {credentials: {secret: hunter2}}",
     "policies.files: account.yaml, secret: this is not a reference but may be a secret. Write "
     "file:/run/secrets/SECRET/KEY or env:NAME"),
    (r"policies.files.account\.yaml=spec: {endpoint: 'https://user:hunter2@venue/'}",
     "policies.files: account.yaml: an address in it holds a user or a password"),
    ("telemetry.env.OTEL_EXPORTER_OTLP_TRACES_ENDPOINT=http://user:hunter2@collector:4318",
     "telemetry.env: OTEL_EXPORTER_OTLP_TRACES_ENDPOINT: a user, a password or a query in it may be a secret"),
    ("telemetry.env.OTEL_EXPORTER_OTLP_ENDPOINT=http://collector:4318?key=hunter2",
     "telemetry.env: OTEL_EXPORTER_OTLP_ENDPOINT: a user, a password or a query in it may be a secret"),
    (r"pod.labels.app\.kubernetes\.io/name=other", "pod.labels: app.kubernetes.io/name is what the StatefulSet finds"),
    (r"pod.labels.app\.kubernetes\.io/instance=other", "pod.labels: app.kubernetes.io/instance is what"),
    (r"policies.files.notes\.txt=x", "at '/policies/files': additional properties 'notes.txt' not allowed"),
    ("policies.configMap=another", "they come from one place, and these are 2: policies.files, policies.configMap"),
    ("live=true,store.kind=emptyDir", "an armed runner forgets latches and unfinished closes"),
    ("live=yes", "at '/live': got string, want boolean"),
    ("interval=1", "at '/interval': got number, want string"),
    ("extraArgs={--live}", "extraArgs: --live has a value of its own"),
    ("extraArgs={--ticks=3}", "extraArgs: --ticks has a value of its own, or would end the runner"),
    ("server.enabled=true,server.behindProxy=true", "Make the file with `ksctl serve token`, put it into a Secret"),
    ("server.enabled=true,server.tokens.secret=tokens", "server: tokens would be sent in the clear"),
    ("watcher.enabled=true,credentials.files[0].secret=main,watcher.credentials.files[0].secret=main",
     "watcher.credentials: main is the runner's own Secret"),
    ("locks.union=trading_lock.json", "Name the folder's claim in locks.claim"),
    ("terminationGracePeriodSeconds=10", "at '/terminationGracePeriodSeconds': minimum: got 10, want 50"),
    ("runAs.user=0", "at '/runAs/user': minimum: got 0, want 1"),
    ("runAs.user=null", "with a group of your own, name the user too"),
    ("store.claim.accessModes={ReadWriteMany}", "at '/store/claim/accessModes/0': value must be one of"),
    ("image.digest=latest", "at '/image/digest': "),
]  # fmt: skip


@pytest.mark.parametrize(("setting", "message"), REFUSED, ids=[setting.partition("=")[0] for setting, _ in REFUSED])
def test_a_wrong_value_is_refused_by_the_name_of_its_key(helm: Helm, setting: str, message: str) -> None:
    """Nothing is rendered; the message names the key and does not repeat a secret."""
    refused = helm.refusal("-f", str(helm.chart / "ci" / "files-values.yaml"), "--set", setting)
    assert message in refused
    assert "hunter2" not in refused


def test_labels_of_the_user_are_on_the_pod(helm: Helm) -> None:
    """In addition to those by which the StatefulSet selects it."""
    runner = example(helm, "files", "--set", "pod.labels.team=risk")["StatefulSet"]
    labels = runner["spec"]["template"]["metadata"]["labels"]
    assert labels["team"] == "risk"
    assert runner["spec"]["selector"]["matchLabels"].items() <= labels.items()


def test_a_runner_follows_the_source_of_the_values(helm: Helm) -> None:
    """Without policies of its own: nothing of these is mounted, named or part of a checksum."""
    found = pod(helm, "source")
    (container,) = found["containers"]
    assert container["args"][:2] == ["run", "--source=/etc/killswitch/source/source.yaml"]
    assert not any(each.startswith("--policies") for each in container["args"])
    mounts = {each["name"]: each for each in container["volumeMounts"]}
    assert mounts["source"] == {"name": "source", "mountPath": "/etc/killswitch/source", "readOnly": True}
    assert "policies" not in mounts
    assert "KSCTL_POLICIES" not in {each["name"] for each in container["env"]}
    volumes = {each["name"]: each for each in found["volumes"]}
    assert volumes["source"]["secret"] == {"secretName": "policy-source", "defaultMode": 0o440}


def test_a_mounted_source_has_its_policies_next_to_it(helm: Helm) -> None:
    """A `config_map` source reads the policies of a ConfigMap, which is mounted as ever and restarts nothing."""
    found = example(helm, "files", "--set", "source.configMap=policy-source")["StatefulSet"]
    template = found["spec"]["template"]
    mounts = {each["name"]: each["mountPath"] for each in template["spec"]["containers"][0]["volumeMounts"]}
    assert (mounts["policies"], mounts["source"]) == ("/etc/killswitch/policies", "/etc/killswitch/source")
    assert "checksum/policies" not in template["metadata"]["annotations"]
    refused = helm.refusal("--set", "source.configMap=one,source.secret=two")
    assert "Name source.configMap or source.secret" in refused


def test_a_release_without_policies_is_refused(helm: Helm) -> None:
    """The chart's default values are not enough to run; the message names the missing ones."""
    assert "Give policies.files, or name a policies.configMap" in helm.refusal()


def test_an_emptydir_for_an_armed_runner_must_be_confirmed(helm: Helm) -> None:
    """`mayBeLost: true` confirms it."""
    more = ("--set", "live=true,store.kind=emptyDir,store.mayBeLost=true")
    (store,) = [each for each in pod(helm, "files", *more)["volumes"] if each["name"] == "store"]
    assert store["emptyDir"] == {"sizeLimit": "1Gi"}


def test_every_object_of_the_schema_is_closed(chart: Path) -> None:
    """A misspelt key is refused at every depth; only objects that Kubernetes itself validates are open."""
    opened = []

    def collect_open(schema: Any, path: str) -> None:
        if not isinstance(schema, dict):
            return
        if schema.get("type") == "object" and schema.get("additionalProperties", True) is True:
            opened.append(path)
        for key, each in schema.get("properties", {}).items():
            collect_open(each, f"{path}.{key}")
        collect_open(schema.get("items"), f"{path}[]")

    collect_open(json.loads((chart / "values.schema.json").read_text(encoding="utf-8")), "")
    assert sorted(opened) == [
        ".extraVolumeMounts[]", ".extraVolumes[]", ".global", ".networkPolicy.clients[]", ".networkPolicy.dns.to[]",
        ".networkPolicy.extraEgress[]", ".pod.affinity", ".pod.tolerations[]", ".policies.volume",
        ".watcher.affinity", ".watcher.extraVolumeMounts[]", ".watcher.extraVolumes[]",
    ]  # fmt: skip


def test_every_value_is_in_the_schema_and_in_the_readme(chart: Path) -> None:
    """`values.yaml`, the schema and the README have the same keys at the first depth."""
    known = yaml.safe_load((chart / "values.yaml").read_text(encoding="utf-8"))
    schema = json.loads((chart / "values.schema.json").read_text(encoding="utf-8"))
    assert set(schema["properties"]) - {"global"} == set(known)
    readme = (chart / "README.md").read_text(encoding="utf-8")
    assert [key for key in known if f"`{key}" not in readme] == []


def test_the_example_of_the_page_renders_and_compiles(helm: Helm, repository: Path, tmp_path: Path) -> None:
    """The values of docs/kubernetes.md render, with a policy from a file, and `ksctl validate` accepts it."""
    page = (repository / "docs" / "kubernetes.md").read_text(encoding="utf-8")
    written, *parts = re.findall("```yaml\n(.*?)```", page, re.DOTALL)
    for number, part in enumerate(parts):
        (tmp_path / f"part-{number}.yaml").write_text(part, encoding="utf-8")
        helm.template("-f", str(helm.chart / "ci" / "live-values.yaml"), "-f", str(tmp_path / f"part-{number}.yaml"))
    (file,) = re.findall("`--set-file '([^']*)'`", page)
    (tmp_path / "values.yaml").write_text(written, encoding="utf-8")
    key, _, path = file.partition("=")
    objects = helm.template("-f", str(tmp_path / "values.yaml"), "--set-file", f"{key}={repository / path}")
    (config,) = [each for each in objects if each["kind"] == "ConfigMap"]
    assert sorted(config["data"]) == ["account.yaml", "policy.yaml"]
    policies = tmp_path / "policies"
    policies.mkdir()
    for name, text in config["data"].items():
        (policies / name).write_text(text, encoding="utf-8")
    checked = CliRunner().invoke(validate, [str(policies)])
    assert checked.exit_code == 0, checked.output


def test_alert_rules_and_dashboard_are_rendered_where_they_are_wanted(helm: Helm) -> None:
    """Both from the files of the chart, which other tests compare with the exported metrics; off by default."""
    values = str(helm.chart / "ci" / "files-values.yaml")
    wanted = ("--set", "monitoring.rules.enabled=true", "--set", "monitoring.dashboard.enabled=true")
    found = {each["kind"]: each for each in helm.template("-f", values, *wanted) if "dashboard" in str(each["metadata"])
             or each["kind"] == "PrometheusRule"}  # fmt: skip
    assert found["PrometheusRule"]["spec"] == yaml.safe_load((helm.chart / "files" / "alerts.yaml").read_text())
    assert json.loads(found["ConfigMap"]["data"]["killswitch.json"])["title"] == "Killswitch"
    assert found["ConfigMap"]["metadata"]["labels"]["grafana_dashboard"] == "1"
    assert "PrometheusRule" not in {each["kind"] for each in helm.template("-f", values)}
