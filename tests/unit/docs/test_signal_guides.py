"""The guides of signals: each has one, its example compiles, and words of the field lead to signals that exist."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from killswitch.graph.compile import compile_loaded
from killswitch.policy.loader import load
from killswitch.signals.catalogue import BY_NAME, CATALOGUE
from killswitch.signals.declaration import SignalSpec
from killswitch.signals.guides import FIELD_WORDS, GUIDES
from tools.reference.signals import example, signals_page

POLICY = """
apiVersion: killswitch.dev/v1
kind: Policy
metadata: {{name: shown}}
spec:
  mode: enforce
  scope: {{each: portfolio, match: {{currency: USDT}}}}{reference}
  max_gap: 10m
  triggers:
    it: {trigger}
  stages:
    - name: stop
      level: 1
      any: [it]
      cooldown: 1h
      reset: manual
      actions:
        - lock_trading: {{mode: reduce_only}}
        - {close}
---
apiVersion: killswitch.dev/v1
kind: CorrelationGroup
metadata: {{name: majors}}
spec: {{symbols: [A], order: 1}}
---
apiVersion: killswitch.dev/v1
kind: HedgeGroup
metadata: {{name: cash-and-carry}}
spec: {{legs: [{{account: spot, symbol: BTC/USDT, ratio: 1}}, {{account: main, symbol: BTC_USDT, ratio: 1}}]}}
"""
TRUE = "{signal: equity.value, below: 1 USDT, on_unknown: hold}"
CLOSE = "close: {side: both, fraction: 100%}"


def test_every_signal_has_a_guide_and_no_other_name_has() -> None:
    """The page cannot leave one out."""
    assert sorted(GUIDES) == sorted(BY_NAME)


@pytest.mark.parametrize("signal", CATALOGUE, ids=lambda each: each.name)
def test_an_example_can_be_copied(signal: SignalSpec, tmp_path: Path) -> None:
    """As a trigger, or as a condition of a close: it compiles without an error, and reads the signal."""
    shown = example(signal)
    reference = "\n  reference: {currency: USD}" if any(each.is_priced for each in signal.arguments) else ""
    if signal.level == "position":
        text = POLICY.format(reference=reference, trigger=TRUE, close=shown)
    elif shown.startswith("{"):
        text = POLICY.format(reference=reference, trigger=shown, close=CLOSE)
    else:
        text = POLICY.format(reference=reference, trigger="{" + ", ".join(shown.splitlines()) + "}", close=CLOSE)
    (tmp_path / "policy.yaml").write_text(text, encoding="utf-8")
    policies, problems = compile_loaded(load([tmp_path]))
    assert [problem for problem in problems if problem.severity == "error"] == []
    assert policies is not None
    (graph,) = policies.graphs
    assert signal.name in {each.name for each in (*graph.signals, *graph.position_signals)}


def test_words_of_the_field_lead_to_signals() -> None:
    """Each row names at least one signal, and every name with a point in it is one; rows are in alphabetical order."""
    for word, text in FIELD_WORDS:
        names = [each for each in re.findall(r"`([^`]+)`", text) if "." in each]
        assert names and set(names) <= BY_NAME.keys(), word
    spoken = [word.lower() for word, _ in FIELD_WORDS]
    assert spoken == sorted(spoken)


def test_a_false_alarm_is_a_text_of_its_own() -> None:
    """An entry that a filter shows alone must not refer to the one above it."""
    assert [name for name, guide in GUIDES.items() if "as above" in guide.false_alarm.lower()] == []


def test_every_entry_says_what_makes_it_unknown_and_fires_it_falsely() -> None:
    """Meaning, example, false alarm, unit, partly known and unknown: each once in each entry."""
    entries = re.split(r"^### ", signals_page(), flags=re.MULTILINE)[1:]
    assert len(entries) == len(CATALOGUE)
    for entry in entries:
        for fact in ("False alarm", "Unit", "Partly known", "Unknown"):
            assert entry.count(f"- **{fact}**: ") == 1, entry.partition("\n")[0]
        assert entry.count("```yaml") == 1


BODY = """<article><h1 id=signals>Signals</h1><h2 id=by-the-fields-word>By the field's word</h2>
<table><tbody><tr><td>Concentration</td><td>exposure.largest_share</td></tr>
<tr><td>Leverage</td><td>exposure.leverage</td></tr></tbody></table>
<h2 id=index>Index</h2><ul><li>all</li></ul>
<h2 id=group-loss>Loss</h2><p>What was lost.</p><h3 id=a>equity.drawdown</h3><p>Fall of the unit value.</p>
<h2 id=group-exposure>Exposure</h2><p>How large.</p><h3 id=b>exposure.leverage</h3><p>Gross to equity.</p>
<h3 id=c>exposure.largest_share</h3><p>Of the gross.</p></article>"""
PROBE = """<script>
const input = document.querySelector("input"), found = {};
for (const word of ["", "GROSS equity", "concentration", "nothing like it"]) {
  input.value = word; input.dispatchEvent(new Event("input"));
  found[word] = [[...document.querySelectorAll("h2, h3")].filter(e => !e.hidden).map(e => e.id),
                 document.querySelector("[aria-live]").textContent];
}
const out = document.createElement("pre"); out.id = "o"; out.textContent = JSON.stringify(found);
document.body.append(out);
</script>"""


def test_the_filter_shows_entries_and_their_groups(repository: Path, tmp_path: Path) -> None:
    """By all words in any order and case, in the text of an entry; the rest and empty groups are hidden."""
    browser = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if browser is None:
        pytest.skip("needs Chromium")
    script = (repository / "docs/assets/signal-filter.js").read_text(encoding="utf-8")
    page = tmp_path / "page.html"
    page.write_text(f"<!doctype html><meta charset=utf-8>{BODY}<script>{script}</script>{PROBE}", encoding="utf-8")
    command = [
        browser, "--headless", "--no-sandbox", "--disable-gpu", f"--user-data-dir={tmp_path}/profile", "--dump-dom",
        page.as_uri(),
    ]  # fmt: skip
    dumped = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True).stdout
    found: dict[str, Any] = json.loads(dumped.split('<pre id="o">')[1].split("</pre>")[0])
    words, index, loss, exposure = "by-the-fields-word", "index", "group-loss", "group-exposure"
    assert found == {
        "": [[words, index, loss, "a", exposure, "b", "c"], ""],
        "GROSS equity": [[exposure, "b"], "1 of 3 signals"],
        "concentration": [[words], "0 of 3 signals"],
        "nothing like it": [[], "0 of 3 signals"],
    }
