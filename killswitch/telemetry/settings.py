"""Settings from the OTEL_* variables, read without importing OpenTelemetry: most runs export nothing."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from importlib.util import find_spec
from typing import Final
from urllib.parse import unquote, urlsplit

from msgspec import Struct

EXPORTERS: Final = ("none", "console", "otlp")
SAMPLERS: Final = (
    "always_on", "always_off", "traceidratio",
    "parentbased_always_on", "parentbased_always_off", "parentbased_traceidratio",
)  # fmt: skip
_GRPC: Final = "opentelemetry.exporter.otlp.proto.grpc"


class TelemetryError(Exception):
    """A variable has an invalid value. The message names it and the valid values, never a secret."""


class TelemetrySettings(Struct, frozen=True):
    """What is exported, and how. `traces` and `metrics` hold `console` and `otlp`, or nothing.

    Variables that OpenTelemetry reads itself (endpoints, timeouts, batches) are validated and left to it.
    """

    traces: tuple[str, ...]
    metrics: tuple[str, ...]
    traces_protocol: str
    metrics_protocol: str
    sampler: str
    ratio: float
    secrets: tuple[str, ...]
    """Values of headers, which may be keys and must not be shown."""


def read_telemetry_settings(environ: Mapping[str, str]) -> TelemetrySettings | None:
    """Parse the variables; None where nothing is exported. Raises TelemetryError for an invalid value.

    A signal is exported if its exporter is named, or else if an OTLP endpoint is. An empty variable counts as unset.
    """
    variables = {name: value.strip() for name, value in environ.items() if name.startswith("OTEL_") and value.strip()}
    if _flag(variables, "OTEL_SDK_DISABLED"):
        return None
    traces, metrics = _exporters(variables, "TRACES"), _exporters(variables, "METRICS")
    if not traces and not metrics:
        return None
    for name, check in _CHECKS.items():
        if name in variables:
            check(name, variables[name])
    sampler = variables.get("OTEL_TRACES_SAMPLER", "parentbased_always_on")
    secrets = [_pairs(name, variables[name]).values() for name in _HEADERS if name in variables]
    return TelemetrySettings(
        traces if sampler not in ("always_off", "parentbased_always_off") else (),
        metrics,
        _protocol(variables, "TRACES") if "otlp" in traces else "",
        _protocol(variables, "METRICS") if "otlp" in metrics else "",
        sampler,
        float(variables.get("OTEL_TRACES_SAMPLER_ARG", "1")),
        tuple(value for values in secrets for value in values),
    )


def _exporters(variables: Mapping[str, str], signal: str) -> tuple[str, ...]:
    name = f"OTEL_{signal}_EXPORTER"
    if name not in variables:
        endpoints = ("OTEL_EXPORTER_OTLP_ENDPOINT", f"OTEL_EXPORTER_OTLP_{signal}_ENDPOINT")
        return ("otlp",) if any(endpoint in variables for endpoint in endpoints) else ()
    wanted = tuple(dict.fromkeys(part.strip().lower() for part in variables[name].split(",") if part.strip()))
    for each in wanted:
        if each not in EXPORTERS:
            raise TelemetryError(f"{name}: {each!r} is not an exporter; write {_one_of(EXPORTERS)}")
    if "none" in wanted and len(wanted) > 1:
        raise TelemetryError(f"{name}: 'none' cannot be combined with another exporter")
    return tuple(each for each in wanted if each != "none")


def _protocol(variables: Mapping[str, str], signal: str) -> str:
    specific = f"OTEL_EXPORTER_OTLP_{signal}_PROTOCOL"
    name = specific if specific in variables else "OTEL_EXPORTER_OTLP_PROTOCOL"
    protocol = variables.get(name, "http/protobuf")
    if protocol == "grpc":
        if _installed(_GRPC):
            return protocol
        raise TelemetryError(
            f"{name}: grpc needs the package opentelemetry-exporter-otlp-proto-grpc, which is not installed; "
            "install it, or write http/protobuf (whose port at a collector is usually 4318)"
        )
    if protocol != "http/protobuf":
        raise TelemetryError(f"{name}: {protocol!r} is not one of http/protobuf, grpc")
    return protocol


def _installed(module: str) -> bool:
    try:
        return find_spec(module) is not None
    except ModuleNotFoundError:
        return False


def _flag(variables: Mapping[str, str], name: str) -> bool:
    value = variables.get(name, "false").lower()
    if value not in ("true", "false"):
        raise TelemetryError(f"{name}: {value!r} is neither true nor false")
    return value == "true"


def _url(name: str, value: str) -> None:
    try:
        parts = urlsplit(value)
        usable = parts.scheme in ("http", "https") and parts.hostname is not None and parts.port != 0
    except ValueError:
        usable = False
    if not usable:
        raise TelemetryError(f"{name}: not a valid address; write one like http://collector:4318")


def _pairs(name: str, value: str) -> dict[str, str]:
    """Parse `key=value,key=value`, values percent-encoded. The error does not repeat the text, which may contain a
    key."""
    found = {}
    for place, part in enumerate(value.split(","), start=1):
        key, equals, rest = part.partition("=")
        if not part.strip():
            continue
        if not (equals and key.strip()):
            raise TelemetryError(f"{name}: part {place} is not key=value; write key=value,key=value")
        found[key.strip()] = unquote(rest.strip())
    return found


def _check(is_usable: Callable[[str], bool], wanted: str) -> Callable[[str, str], None]:
    """A check of a variable's value; a value for which `is_usable` raises ValueError is invalid."""

    def check(name: str, value: str) -> None:
        try:
            usable = is_usable(value)
        except ValueError:
            usable = False
        if not usable:
            raise TelemetryError(f"{name}: {value!r} is not {wanted}")

    return check


def _choice(*allowed: str) -> Callable[[str, str], None]:
    return _check(lambda value: value in allowed, f"one of {', '.join(allowed)}")


_positive_integer = _check(
    lambda value: value.isascii() and value.isdigit() and int(value) > 0, "a whole number above 0"
)
_seconds = _check(lambda value: 0 < float(value) < float("inf"), "a number above 0")
_ratio = _check(lambda value: 0 <= float(value) <= 1, "a number from 0 to 1")


def _one_of(names: tuple[str, ...]) -> str:
    return f"{', '.join(names[:-1])} or {names[-1]}"


def _for_each(suffix: str) -> tuple[str, ...]:
    return tuple(f"OTEL_EXPORTER_OTLP_{signal}{suffix}" for signal in ("", "TRACES_", "METRICS_"))


_HEADERS: Final = _for_each("HEADERS")
_CHECKS: Final[Mapping[str, Callable[[str, str], object]]] = {
    **dict.fromkeys(_for_each("ENDPOINT"), _url),
    **dict.fromkeys(_HEADERS, _pairs),
    **dict.fromkeys(_for_each("TIMEOUT"), _seconds),
    **dict.fromkeys(_for_each("COMPRESSION"), _choice("none", "gzip", "deflate")),
    "OTEL_RESOURCE_ATTRIBUTES": _pairs,
    "OTEL_TRACES_SAMPLER": _choice(*SAMPLERS),
    "OTEL_TRACES_SAMPLER_ARG": _ratio,
    "OTEL_METRIC_EXPORT_INTERVAL": _positive_integer,
    "OTEL_METRIC_EXPORT_TIMEOUT": _positive_integer,
    "OTEL_BSP_SCHEDULE_DELAY": _positive_integer,
    "OTEL_BSP_EXPORT_TIMEOUT": _positive_integer,
    "OTEL_BSP_MAX_QUEUE_SIZE": _positive_integer,
    "OTEL_BSP_MAX_EXPORT_BATCH_SIZE": _positive_integer,
}
