"""Traces, metrics and events of real runners, as a collector, a terminal and a file receive them."""

from __future__ import annotations

import json
import os
import socket
from contextlib import closing
from pathlib import Path

import pytest

from killswitch.store.sqlite import open_store
from killswitch.telemetry.events import decode_event
from tests.e2e.processes import WAIT_LIMIT, Site, ksctl, paper, process, terminate, until
from tests.e2e.test_run import CRASHING, UNMOVING
from tests.otlp_receiver import Receiver, points, receiver, said

KEY = "planted-key-9f2c71"


@pytest.fixture(autouse=True)
def _no_exporters(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each test sets the variables of its own exporters."""
    for name in [name for name in os.environ if name.startswith("OTEL_")]:
        monkeypatch.delenv(name)


def ended(site: Site) -> bool:
    """Whether the close of the account has ended; the lock's own end comes before."""
    return any(entry.kind == "finished" and entry.account == "main" for entry in site.journal())


def test_a_collector_gets_the_whole_incident_as_one_trace(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, repository: Path
) -> None:
    """Decision, close and every order are one trace, under the tick that decided; the metrics agree with it."""
    with receiver() as collector, paper(*CRASHING) as address:
        for name, value in {
            "ENDPOINT": collector.address, "COMPRESSION": "gzip", "HEADERS": f"authorization=Bearer%20{KEY}",
        }.items():  # fmt: skip
            monkeypatch.setenv(f"OTEL_EXPORTER_OTLP_{name}", value)
        monkeypatch.setenv("OTEL_METRIC_EXPORT_INTERVAL", "300")
        monkeypatch.setenv("OTEL_SERVICE_NAME", "guard")
        monkeypatch.setenv("OTEL_RESOURCE_ATTRIBUTES", "deployment.environment.name=drill")
        site = Site(tmp_path, address)
        with site.running("--live") as runner:
            until(lambda: ended(site), "the closing ends")
            status, out, err = terminate(runner)
        assert status == 0, err
        (decision,) = site.decisions()
        assert decision.id in out
        _one_trace(collector, decision.id, decision.as_of.timestamp())
        resource = collector.resource()
        assert (resource["service.name"], resource["deployment.environment.name"]) == ("guard", "drill")
        assert {headers["Content-Encoding"] for _, headers in collector.requests} == {"gzip"}
        assert {headers["authorization"] for _, headers in collector.requests} == {f"Bearer {KEY}"}
        assert not any(KEY.encode() in body for body in collector.bodies)
        metrics = collector.metrics()
        labels = {"killswitch.policy": "stop", "killswitch.scope": "account/main"}
        assert metrics["killswitch.tick.duration"].unit == "s"
        assert sum(p.count for p in metrics["killswitch.tick.duration"].histogram.data_points) >= 2
        assert points(metrics["killswitch.orders"]) == [
            ({"killswitch.account": "main", "killswitch.order.outcome": "filled"}, 8)
        ]
        (closing,) = metrics["killswitch.close.duration"].histogram.data_points
        assert (said(closing.attributes)["killswitch.close.status"], closing.count) == ("flat", 1)
        assert points(metrics["killswitch.stage.level"]) == [(labels, 1)]
        page = (repository / "docs" / "telemetry.md").read_text(encoding="utf-8")
        attributes = {name for span in collector.spans() for name in said(span.attributes)}
        assert {name for name in {*attributes, *metrics} if f"`{name}`" not in page} == set()


def _one_trace(collector: Receiver, decision: str, as_of: float) -> None:
    (close,) = collector.spans("close")
    assert said(close.attributes)["killswitch.decision"] == decision
    trace = [span for span in collector.spans() if span.trace_id == close.trace_id]
    by_id = {span.span_id: span for span in trace}
    (tick,) = [span for span in trace if span.name == "tick"]
    assert tick.parent_span_id == b""
    assert close.parent_span_id == tick.span_id
    assert abs(close.start_time_unix_nano / 1e9 - as_of) < 1e-3
    assert said(tick.attributes)["killswitch.decisions"] == 1
    parents = {(span.name, by_id[span.parent_span_id].name) for span in trace if span is not tick}
    assert parents == {
        ("snapshot", "tick"), ("evaluate", "tick"), ("decide", "tick"), ("commit", "tick"), ("close", "tick"),
        ("order", "close"), ("report", "tick"), ("decision", "tick"),
    }  # fmt: skip
    orders = [said(span.attributes) for span in trace if span.name == "order"]
    assert len({order["killswitch.order.client_id"] for order in orders}) == 8
    assert {order["killswitch.order.outcome"] for order in orders} == {"filled"}
    assert all(order["killswitch.order.filled"] == order["killswitch.order.amount"] for order in orders)
    ticks = collector.spans("tick")
    assert len({span.trace_id for span in ticks}) == len(ticks)


ROUTE = """\
apiVersion: killswitch.dev/v1
kind: NotificationTree
metadata: {{name: desk}}
spec: {{receiver: desk, receivers: {{desk: {{targets: [{{file: {{path: '{file}'}}}}]}}}}}}
"""


def test_one_search_by_the_incident_finds_every_span_of_it_and_every_line_of_the_log(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The tick, its decision, the close, each order, each message and the report; the log is JSON to its last line.

    The decision on record names it too.
    """
    with receiver() as collector, paper(*CRASHING) as address:
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", collector.address)
        site = Site(tmp_path, address)
        messages = tmp_path / "messages.jsonl"
        (site.policies / "route.yaml").write_text(ROUTE.format(file=messages), encoding="utf-8")
        with site.running("--live", "--log-format", "json") as runner:
            # The tick that sees the end sends the message and writes the line of the log.
            until(lambda: messages.exists() and "FLAT" in messages.read_text(encoding="utf-8"), "the end is notified")
            status, out, err = terminate(runner)
    events = [json.loads(line) for line in err.splitlines()]
    assert status == 0, err
    (incident,) = [each.id for each in site.decisions()]
    about = [said(span.attributes) | {"name": span.name} for span in collector.spans()]
    names = [each["name"] for each in about if each.get("killswitch.incident") == incident]
    assert set(names) == {"tick", "decision", "close", "order", "notification", "report"}
    assert names.count("order") == 8
    sent = [json.loads(line) for line in messages.read_text(encoding="utf-8").splitlines()]
    delivered = {each["killswitch.notification"] for each in about if each["name"] == "notification"}
    assert {each["id"] for each in sent} == delivered
    assert incident in out
    (decided,) = [each for each in events if each.get("decision") == incident and each["kind"] == "stage"]
    assert (decided["level"], decided["incident"], decided["policy"]) == ("warning", incident, "stop")
    assert {each["incident"] for each in events if each.get("kind") == "close"} == {incident}
    assert all({"timestamp", "level", "event"} <= each.keys() for each in events)
    with closing(open_store(str(site.store), read_only=True)) as store:
        recorded = [json.loads(line.text) for line in store.record_lines()]
    assert [each["incident"] for each in recorded if each["kind"] == "decision"] == [incident]


def test_an_operator_close_without_a_runner_is_a_trace_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The command ticks until it sees the book closed; the trace of its first tick has the close and its orders."""
    with receiver() as collector, paper("--crash", "7", "--speed", "600", "--begin-after-readings", "2") as address:
        site = Site(tmp_path, address)
        assert ksctl("run", *site.place, "--ticks", "1").returncode == 0
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", collector.address)
        done = ksctl("close", *site.place, "--reason", "operator: drill", "--live", "--wait", "1m")
        assert done.returncode == 0, done.stdout + done.stderr
        tick, *_looks = sorted(collector.spans("tick"), key=lambda each: each.start_time_unix_nano)
        (close,) = collector.spans("close")
        assert close.parent_span_id == tick.span_id
        assert said(close.attributes)["killswitch.policy"] == "operator"
        assert len(collector.spans("order")) >= 8


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [("OTEL_TRACES_EXPORTER", "nonsense", "is not an exporter"), ("OTEL_SPAN_ATTRIBUTE_COUNT_LIMIT", "-5x", "-5x")],
)
def test_telemetry_that_cannot_be_set_up_refuses_a_run_with_a_message_and_no_close(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, value: str, message: str
) -> None:
    """An operator close reports what is missing, and the book is closed."""
    with paper("--crash", "7", "--speed", "600", "--begin-after-readings", "2") as address:
        site = Site(tmp_path, address)
        assert ksctl("run", *site.place, "--ticks", "1").returncode == 0
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:9")
        monkeypatch.setenv("OTEL_METRICS_EXPORTER", "none")
        monkeypatch.setenv(name, value)
        refused = ksctl("run", *site.place, "--ticks", "1")
        assert (refused.returncode, "Traceback" in refused.stderr) == (69, False), refused.stderr
        assert message in refused.stderr
        done = ksctl("close", *site.place, "--reason", "operator: drill", "--live", "--force", "--wait", "1m")
        assert done.returncode == 0, done.stdout + done.stderr
        assert "no traces and no metrics: " in done.stderr and message in done.stderr
        assert site.venue().positions == ()


def test_thinning_out_ticks_keeps_every_incident(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With a sampler that keeps no trace, the trace of the tick that decided is kept, with all its spans."""
    with receiver() as collector, paper(*CRASHING) as address:
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", collector.address)
        monkeypatch.setenv("OTEL_TRACES_SAMPLER", "parentbased_traceidratio")
        monkeypatch.setenv("OTEL_TRACES_SAMPLER_ARG", "0")
        site = Site(tmp_path, address)
        with site.running("--live") as runner:
            until(lambda: ended(site), "the closing ends")
            assert terminate(runner)[0] == 0
        (tick,) = collector.spans("tick")
        assert {span.trace_id for span in collector.spans()} == {tick.trace_id}
        assert len(collector.spans("order")) == 8


def test_the_console_is_stderr(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Spans and metrics on the console leave stdout to the decisions."""
    monkeypatch.setenv("OTEL_TRACES_EXPORTER", "console")
    monkeypatch.setenv("OTEL_METRICS_EXPORTER", "console")
    with paper(*UNMOVING) as address:
        site = Site(tmp_path, address)
        with process("run", *site.place, "--ticks", "2", "--interval", "10ms") as runner:
            out, err = runner.communicate(timeout=WAIT_LIMIT)
    assert runner.returncode == 0, err
    assert out == ""
    assert err.count('"name": "tick"') == 2
    assert '"name": "killswitch.tick.duration"' in err


def test_a_collector_that_is_down_is_reported_once_and_does_not_delay_the_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The book is closed, ticks continue, one notice names what is lost, and the exit does not wait for long."""
    with socket.socket() as taken, paper(*CRASHING) as address:
        taken.bind(("127.0.0.1", 0))  # bound and not listening: every connection is refused
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", f"http://127.0.0.1:{taken.getsockname()[1]}")
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_HEADERS", f"api-key={KEY}")
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_TIMEOUT", "1")
        monkeypatch.setenv("OTEL_BSP_SCHEDULE_DELAY", "50")
        monkeypatch.setenv("OTEL_METRIC_EXPORT_INTERVAL", "200")
        site = Site(tmp_path, address)
        with site.running("--live") as runner:
            until(lambda: ended(site), "the closing ends")
            # `status` shows a problem a tick before anyone is paged; a tick that has begun to page ends its page.
            until(lambda: any("traces (otlp)" in text for text in _paged(site)), "the loss of traces is reported")
            until(lambda: any("metrics (otlp)" in text for text in _paged(site)), "the loss of metrics is reported too")
            status, _, err = terminate(runner)
    assert status == 0, err
    assert site.journal()
    lines = [line for line in err.splitlines() if "cannot be exported" in line and "page" in line]
    assert 1 <= len(lines) <= 2, err
    assert "Traceback" not in err
    assert KEY not in err


def test_no_credential_reaches_a_span_a_metric_or_an_event(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A venue's error that quotes the account's credential is exported without it, everywhere.

    The credential is the port on which nothing listens, because this venue's error quotes the port.
    """
    with receiver() as collector, socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        port = taken.getsockname()[1]
        monkeypatch.setenv("PLANTED", str(port))
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", collector.address)
        site = Site(tmp_path, f"http://127.0.0.1:{port}")
        account = site.policies / "account.yaml"
        plain = account.read_text(encoding="utf-8")
        account.write_text(plain.replace("swap,", "swap, credentials: {k: env:PLANTED},"), encoding="utf-8")
        events = tmp_path / "events.jsonl"
        done = ksctl("run", *site.place, "--ticks", "2", "--interval", "10ms", "--events", str(events))
    assert done.returncode == 0, done.stderr
    errors = {span.status.message for span in collector.spans("snapshot")}
    assert all("[hidden credential]" in each for each in errors), errors
    assert "[hidden credential]" in events.read_text(encoding="utf-8")
    for text in (events.read_bytes(), done.stderr.encode(), *collector.bodies):
        assert f"127.0.0.1:{port}".encode() not in text


def _paged(site: Site) -> list[str]:
    return [notice.text for notice in site.status().notices if notice.severity == "page"]


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("OTEL_TRACES_EXPORTER", "zipkin", "'zipkin' is not an exporter; write none, console or otlp"),
        ("OTEL_EXPORTER_OTLP_ENDPOINT", "collector:4318", "write one like http://collector:4318"),
    ],
)
def test_a_wrong_variable_starts_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, value: str, message: str
) -> None:
    """Exit 69 with the variable's name and the accepted values, and no store."""
    monkeypatch.setenv(name, value)
    site = Site(tmp_path, "http://127.0.0.1:1")
    done = ksctl("run", *site.place, "--ticks", "1")
    assert done.returncode == 69
    assert f"{name}: " in done.stderr
    assert message in done.stderr
    assert "Traceback" not in done.stderr
    assert not site.store.exists()


def test_events_record_a_run_line_by_line(tmp_path: Path) -> None:
    """The portfolio at every tick, the trip, the end of the close, and the latched stages at shutdown."""
    with paper(*CRASHING) as address:
        site = Site(tmp_path, address)
        with site.running("--live", "--events", str(tmp_path / "events.jsonl")) as runner:
            until(lambda: ended(site), "the closing ends")
            assert terminate(runner)[0] == 0
    lines = (tmp_path / "events.jsonl").read_bytes().splitlines()
    events = [decode_event(line) for line in lines]
    records = [json.loads(line) for line in lines]
    assert {each["format"] for each in records} == {"killswitch.event/v1"}
    (decision,) = site.decisions()
    (trip,) = [each for each in records if each["kind"] == "trip"]
    assert (trip["decision"], trip["acted_on"], len(trip["closes"])) == (decision.id, True, 8)
    closes = [each for each in records if each["kind"] == "close"]
    assert (closes[-1]["decision"], closes[-1]["status"], closes[-1]["ended"]) == (decision.id, "flat", True)
    states: dict[str, list[str]] = {}
    for each in records:
        if each["kind"] == "order":
            states.setdefault(each["order"], []).append(each["state"])
    assert len(states) == 8, "one order for each position"
    assert {(found[0], found[-1]) for found in states.values()} == {("sending", "filled")}
    last = records[-1]
    assert (last["kind"], last["why"], last["unfinished"]) == ("shutdown", "stopped by SIGTERM", [])
    assert [each["stage"] for each in last["latched"]] == ["close-everything"]
    assert sum(each["kind"] == "portfolio" for each in records) == last["ticks"]
    assert len(events) == len(records)


def test_with_events_on_stdout_nothing_else_is_written_there(tmp_path: Path) -> None:
    """Every line of stdout is an event, the decision goes to stderr, and --output json is refused together with it."""
    with paper(*CRASHING) as address:
        site = Site(tmp_path, address)
        with process("run", *site.place, "--interval", "100ms", "--events", "-") as runner:
            try:
                until(lambda: runner.poll() is not None or site.has_ticked(), "the runner ticks")
                until(site.decisions, "it is decided")
                status, out, err = terminate(runner)
            finally:
                runner.kill()
        assert status == 0, err
        kinds = {type(decode_event(line)).__name__ for line in out.splitlines()}
        assert {"Portfolio", "Trip", "Shutdown"} <= kinds
        assert "level 1 close-everything" in err
        refused = ksctl("run", *site.place, "--ticks", "1", "--events", "-", "--output", "json")
        assert (refused.returncode, "both write to stdout" in refused.stderr) == (64, True)


def test_an_event_pipe_without_a_reader_does_not_keep_a_position_open(tmp_path: Path) -> None:
    """Nobody reads the pipe: the book is closed, and the run ends at SIGTERM."""
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    with paper(*CRASHING) as address:
        site = Site(tmp_path, address)
        with site.running("--live", "--events", str(pipe)) as runner:
            until(lambda: ended(site), "the closing ends")
            status, _, err = terminate(runner)
        assert status == 0, err
        assert "events" in err
        assert site.venue().positions == ()
