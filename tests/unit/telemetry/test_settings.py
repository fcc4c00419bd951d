"""The OTEL_* variables: which values enable an export, which are invalid, and their errors."""

from __future__ import annotations

import subprocess
import sys

import pytest

from killswitch.telemetry import settings as reading
from killswitch.telemetry.settings import TelemetryError, TelemetrySettings, read_telemetry_settings

HERE = "http://127.0.0.1:4318"


@pytest.mark.parametrize(
    "environ",
    [
        {},
        {"PATH": "/usr/bin"},
        {"OTEL_TRACES_EXPORTER": "none", "OTEL_METRICS_EXPORTER": "none", "OTEL_EXPORTER_OTLP_ENDPOINT": HERE},
        {"OTEL_TRACES_EXPORTER": ""},
        {"OTEL_SERVICE_NAME": "guard", "OTEL_TRACES_SAMPLER": "always_on"},
        {"OTEL_SDK_DISABLED": "true", "OTEL_TRACES_EXPORTER": "otlp", "OTEL_EXPORTER_OTLP_PROTOCOL": "carrier-pigeon"},
        {"OTEL_EXPORTER_OTLP_LOGS_ENDPOINT": HERE},
    ],
    ids=lambda environ: " ".join(environ) or "nothing",
)
def test_nothing_is_exported_unless_an_exporter_or_an_endpoint_is_named(environ: dict[str, str]) -> None:
    """Variables that name neither, name `none`, or are empty, export nothing."""
    assert read_telemetry_settings(environ) is None


@pytest.mark.parametrize(
    ("environ", "traces", "metrics"),
    [
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": HERE}, ("otlp",), ("otlp",)),
        ({"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": f"{HERE}/v1/traces"}, ("otlp",), ()),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": HERE, "OTEL_METRICS_EXPORTER": "none"}, ("otlp",), ()),
        ({"OTEL_TRACES_EXPORTER": "console, otlp,console"}, ("console", "otlp"), ()),
        ({"OTEL_METRICS_EXPORTER": "console", "OTEL_SDK_DISABLED": "false"}, (), ("console",)),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": HERE, "OTEL_TRACES_SAMPLER": "always_off"}, (), ("otlp",)),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, dict) else None,
)
def test_named_exporters_are_used(environ: dict[str, str], traces: tuple[str, ...], metrics: tuple[str, ...]) -> None:
    """Exporters by name, in order and once; else OTLP if there is an endpoint; no spans if none is sampled."""
    found = read_telemetry_settings(environ)
    assert found is not None
    assert (found.traces, found.metrics) == (traces, metrics)


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("OTEL_TRACES_EXPORTER", "jaeger", "'jaeger' is not an exporter; write none, console or otlp"),
        ("OTEL_METRICS_EXPORTER", "prometheus", "'prometheus' is not an exporter; write none, console or otlp"),
        ("OTEL_TRACES_EXPORTER", "none,otlp", "'none' cannot be combined with another exporter"),
        ("OTEL_EXPORTER_OTLP_PROTOCOL", "http/json", "'http/json' is not one of http/protobuf, grpc"),
        ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "localhost:4318", "not a valid address; write one like http://"),
        ("OTEL_EXPORTER_OTLP_TIMEOUT", "soon", "'soon' is not a number above 0"),
        ("OTEL_EXPORTER_OTLP_COMPRESSION", "zip", "'zip' is not one of none, gzip, deflate"),
        ("OTEL_RESOURCE_ATTRIBUTES", "service.name=a,prod", "part 2 is not key=value"),
        ("OTEL_TRACES_SAMPLER", "sometimes", "'sometimes' is not one of always_on, always_off, traceidratio"),
        ("OTEL_TRACES_SAMPLER_ARG", "2", "'2' is not a number from 0 to 1"),
        ("OTEL_METRIC_EXPORT_INTERVAL", "1s", "'1s' is not a whole number above 0"),
        ("OTEL_BSP_MAX_QUEUE_SIZE", "0", "'0' is not a whole number above 0"),
        ("OTEL_SDK_DISABLED", "yes", "'yes' is neither true nor false"),
    ],
)  # fmt: skip
def test_an_invalid_value_is_an_error_that_names_the_variable(name: str, value: str, message: str) -> None:
    """The message names the variable, the mistake, and the accepted values."""
    with pytest.raises(TelemetryError) as raised:
        read_telemetry_settings({"OTEL_EXPORTER_OTLP_ENDPOINT": HERE, name: value})
    assert str(raised.value).startswith(f"{name}: ")
    assert message in str(raised.value)


def test_headers_are_secrets_and_no_error_repeats_them() -> None:
    """Their values are passed on for redaction; a malformed one is named by its position."""
    found = read_telemetry_settings(
        {"OTEL_EXPORTER_OTLP_ENDPOINT": HERE, "OTEL_EXPORTER_OTLP_HEADERS": "api-key=k%3D1,x=y",
         "OTEL_EXPORTER_OTLP_TRACES_HEADERS": "authorization=Bearer t"}
    )  # fmt: skip
    assert found is not None
    assert sorted(found.secrets) == ["Bearer t", "k=1", "y"]
    with pytest.raises(TelemetryError) as raised:
        read_telemetry_settings({"OTEL_EXPORTER_OTLP_ENDPOINT": HERE, "OTEL_EXPORTER_OTLP_HEADERS": "planted-key"})
    assert "planted" not in str(raised.value)


def test_grpc_without_its_package_is_an_error_that_names_the_package(monkeypatch: pytest.MonkeyPatch) -> None:
    """The error names the package, or the available protocol. If the package is installed, it is used."""
    environ = {"OTEL_EXPORTER_OTLP_ENDPOINT": HERE, "OTEL_EXPORTER_OTLP_PROTOCOL": "grpc"}
    monkeypatch.setattr(reading, "find_spec", lambda _module: None)
    with pytest.raises(TelemetryError, match="opentelemetry-exporter-otlp-proto-grpc, which is not installed"):
        read_telemetry_settings(environ)
    monkeypatch.setattr(reading, "find_spec", lambda _module: reading)
    found = read_telemetry_settings(environ)
    assert isinstance(found, TelemetrySettings)
    assert found.traces_protocol == "grpc"


def test_a_run_that_exports_nothing_imports_nothing() -> None:
    """Opening telemetry without an exporter, and the verb itself, do not import OpenTelemetry."""
    code = (
        "import sys; import killswitch.cli.live.run, killswitch.cli.live.run_outputs, killswitch.runner.assembly;"
        "from killswitch.telemetry.opened import SILENT, open_telemetry;"
        "assert open_telemetry({}, None, store='s', redaction=None) is SILENT;"
        "assert not [name for name in sys.modules if name.startswith('opentelemetry')]"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
