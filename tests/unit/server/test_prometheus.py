"""`/metrics`: the state of a store in the text format of Prometheus, read by Prometheus' own parser."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml  # type: ignore[import-untyped]  # it ships no types
from prometheus_client.parser import text_string_to_metric_families

from killswitch.operations.prometheus import Family, Sample, prometheus_text
from killswitch.store.sqlite import open_store
from tests.incidents import FilledStore, filled_store, whole_incident
from tests.worlds import after

CHART = Path(__file__).parents[3] / "charts" / "killswitch"


@pytest.fixture(scope="module")
def ended(tmp_path_factory: pytest.TempPathFactory) -> Iterator[FilledStore]:
    written = filled_store(tmp_path_factory.mktemp("incident"))
    whole_incident(written)
    yield written
    written.store.close()


def samples(text: str) -> dict[str, list[tuple[dict[str, str], float]]]:
    """Every metric by its name, with the labels and value of each line."""
    return {
        family.name: [(dict(each.labels), each.value) for each in family.samples]
        for family in text_string_to_metric_families(text)
    }


def test_the_text_is_what_prometheus_parses(ended: FilledStore) -> None:
    """Closes of the last day by hand: of three filled orders the worst slipped by 1 of 50, which is 2%."""
    found = samples(prometheus_text(ended.store, after(minutes=20)))
    assert found["killswitch_runner_up"] == [({}, 0.0)]
    assert {labels["severity"] for labels, _ in found["killswitch_alerts_active"]} == {"page", "warning", "info"}
    assert 0 <= found["killswitch_close_success_ratio"][0][1] <= 1
    assert found["killswitch_close_slippage_worst_ratio"][0][1] == pytest.approx(0.02)


def test_what_is_unknown_has_no_line(tmp_path: Path) -> None:
    """An empty store has no close, no message and no tick: none of them is 0."""
    store = open_store(str(tmp_path / "empty.sqlite"))
    found = samples(prometheus_text(store, after()))
    store.close()
    assert set(found) == {"killswitch_runner_up", "killswitch_alerts_active"}


def test_closes_of_another_day_do_not_count(ended: FilledStore) -> None:
    """Two days later the share of successful closes is not known."""
    assert "killswitch_close_success_ratio" not in samples(prometheus_text(ended.store, after(hours=49)))


def test_a_label_is_escaped() -> None:
    """A quote, a backslash and a line break in a name break no line."""
    from killswitch.operations import prometheus

    hostile = 'a"b\\c\nd'
    family = Family("killswitch_stage_level", "gauge", "x", (Sample(1.0, (("scope", hostile),)),))
    text = "".join(f"{line}\n" for line in prometheus.lines_of(family))
    assert samples(text) == {"killswitch_stage_level": [({"scope": hostile}, 1.0)]}


NAMED = re.compile(r"\bkillswitch_[a-z_]+\b")


def known_names() -> set[str]:
    """The names that `/metrics` may have, as its module writes them."""
    source = Path(prometheus_text.__code__.co_filename).read_text(encoding="utf-8")
    return set(re.findall(r'"(killswitch_[a-z_]+)"', source))


def rules() -> list[dict[str, object]]:
    found = yaml.safe_load((CHART / "files" / "alerts.yaml").read_text(encoding="utf-8"))
    return [rule for group in found["groups"] for rule in group["rules"]]


def test_every_alert_rule_and_every_panel_uses_a_metric_that_exists() -> None:
    """A rule on a name that nothing exports never fires."""
    dashboard = json.loads((CHART / "files" / "dashboard.json").read_text(encoding="utf-8"))
    queries = [target["expr"] for panel in dashboard["panels"] for target in panel.get("targets", ())]
    used = {name for text in (*(str(rule["expr"]) for rule in rules()), *queries) for name in NAMED.findall(text)}
    assert used <= known_names()
    assert known_names() - used <= {"killswitch_account_positions", "killswitch_notifications_delivered"}


@pytest.mark.parametrize("rule", rules(), ids=lambda rule: str(rule["alert"]))
def test_an_alert_says_what_to_do(rule: dict[str, dict[str, str]]) -> None:
    """A severity for the route, a summary, and the command to run next."""
    assert rule["labels"]["severity"] in ("page", "warning")
    assert "ksctl " in rule["annotations"]["description"]


def test_panels_do_not_overlap_and_have_titles() -> None:
    """In Grafana's grid of 24 columns."""
    dashboard = json.loads((CHART / "files" / "dashboard.json").read_text(encoding="utf-8"))
    taken: set[tuple[int, int]] = set()
    for panel in dashboard["panels"]:
        at = panel["gridPos"]
        cells = {(at["x"] + x, at["y"] + y) for x in range(at["w"]) for y in range(at["h"])}
        assert panel["title"]
        assert at["x"] + at["w"] <= 24
        assert not cells & taken
        taken |= cells
