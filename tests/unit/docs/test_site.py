"""The documentation builds as a site that fetches nothing from another host."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path

import pytest

from killswitch.signals.catalogue import CATALOGUE
from tools.site.pages import with_links_to_sets

ELSEWHERE = re.compile(r"(https?:)?//(?!www\.w3\.org/)")
FETCHED = {"script": "src", "img": "src", "iframe": "src", "source": "src", "object": "data", "use": "href"}
LINKS_THAT_FETCH = {"stylesheet", "icon", "preconnect", "preload", "prefetch", "dns-prefetch", "manifest"}


def build(repository: Path, site: Path) -> subprocess.CompletedProcess[str]:
    """`mkdocs build --strict` of the tree at `repository` into `site`."""
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(site)]
    environment = os.environ | {"NO_MKDOCS_2_WARNING": "1"}
    return subprocess.run(
        command, cwd=repository, env=environment, capture_output=True, text=True, timeout=120, check=False
    )


@pytest.fixture(scope="module")
def site(repository: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The built site; its build has no warning."""
    folder = tmp_path_factory.mktemp("site")
    built = build(repository, folder)
    assert built.returncode == 0, built.stderr
    return folder


class Fetches(HTMLParser):
    """Collects the resources that a page fetches when it is opened."""

    def __init__(self) -> None:
        super().__init__()
        self.addresses: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = {key: value or "" for key, value in attrs}
        if tag == "link" and LINKS_THAT_FETCH & set(given.get("rel", "").split()):
            self.addresses.append(given.get("href", ""))
        elif tag in FETCHED:
            self.addresses.append(given.get(FETCHED[tag], ""))


def test_no_page_fetches_a_resource_from_another_host(site: Path) -> None:
    """No font, script, style or picture of another host, so the site works behind any firewall."""
    pages = sorted(site.rglob("*.html"))
    assert len(pages) > 20
    for page in pages:
        fetches = Fetches()
        fetches.feed(page.read_text(encoding="utf-8"))
        assert [address for address in fetches.addresses if ELSEWHERE.match(address)] == [], page.name
    for style in site.rglob("*.css"):
        assert re.findall(r"(?:url\(|@import\s+)['\"]?https?://", style.read_text(encoding="utf-8")) == [], style.name


def test_no_page_has_an_element_for_which_the_theme_fetches_a_script(site: Path) -> None:
    """The theme loads Mermaid from a CDN for a diagram, and queries code hosts about a repository."""
    for page in site.rglob("*.html"):
        text = page.read_text(encoding="utf-8")
        assert 'class="mermaid"' not in text, page.name
        assert "data-md-component=source" not in text.replace('"', ""), page.name


def test_every_decision_and_every_policy_set_has_a_page(site: Path, repository: Path) -> None:
    """Pages are added automatically; the template is no decision."""
    decisions = {path.stem for path in (repository / "docs" / "adr").glob("*.md")} - {"0000-template"}
    assert {path.stem for path in (site / "adr").glob("*.html")} == decisions
    history = {path.stem for path in (repository / "docs" / "adr" / "history").glob("*.md")}
    assert {path.stem for path in (site / "adr" / "history").glob("*.html")} == history
    assert {path.stem for path in (site / "policies").glob("*.html")} == {
        path.parent.name for path in (repository / "policies").glob("*/README.md")
    }


def test_a_broken_page_fails_the_build(repository: Path, tmp_path: Path) -> None:
    """A broken link or anchor and a page outside the navigation are errors, each named."""
    copied = tmp_path / "copy"
    for name in ("docs", "policies", "tools"):
        shutil.copytree(repository / name, copied / name, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(repository / "mkdocs.yml", copied)
    with (copied / "docs" / "lock.md").open("a", encoding="utf-8") as page:
        page.write("\n[gone](nowhere.md)\n\n[gone](semantics.md#nowhere)\n")
    (copied / "docs" / "forgotten.md").write_text("# Forgotten\n", encoding="utf-8")
    built = build(copied, tmp_path / "site")
    assert built.returncode != 0
    output = re.split(r"^(?=[A-Z]+ +-)", built.stderr, flags=re.MULTILINE)
    warnings = [each for each in output if each.startswith("WARNING")]
    assert len(warnings) == 3
    for named in ("'nowhere.md'", "#nowhere", "- forgotten.md"):
        assert any(named in each for each in warnings), (named, warnings)


def test_the_name_of_a_policy_set_links_to_its_page() -> None:
    """In prose and tables; not in code blocks, headings and existing links, and not on the page of the set itself."""
    page = "# `a-set`\n`a-set` and [`b-set`](b.md)\n```sh\n`a-set`\n```\n| `b-set` | a-set |"
    first, last = "[`a-set`](../policies/a-set.md)", "[`b-set`](../policies/b-set.md)"
    linked = f"# `a-set`\n{first} and [`b-set`](b.md)\n```sh\n`a-set`\n```\n| {last} | [a-set](../policies/a-set.md) |"
    assert with_links_to_sets(page, ["a-set", "b-set"], "reference/page.md") == linked
    assert with_links_to_sets("`a-set` `b-set`", ["a-set", "b-set"], "policies/a-set.md") == (
        "`a-set` [`b-set`](../policies/b-set.md)"
    )


@pytest.mark.parametrize("folder", ["adr", "adr/history"])
def test_the_index_lists_every_decision_once(repository: Path, folder: str) -> None:
    """By its number, as a link."""
    at = repository / "docs" / folder
    listed = re.findall(
        r"^\| \[(\d{4})\]\((\1-[^)]*\.md)\)", (at / "index.md").read_text(encoding="utf-8"), re.MULTILINE
    )
    assert sorted(name for _, name in listed) == sorted(
        path.name for path in at.glob("[0-9]*.md") if path.name != "0000-template.md"
    )


PROBE = """<script>
addEventListener("load", () => setTimeout(() => {
  const input = document.querySelector("article input"), found = {};
  const shown = kind => [...document.querySelectorAll("article " + kind)].filter(e => e.offsetParent).map(e => e.id);
  found["before"] = [shown("h3").length, shown("h2")];
  for (const word of ["herfindahl", "depeg", "xyzzy"]) {
    input.value = word;
    input.dispatchEvent(new Event("input"));
    found[word] = [shown("h3"), shown("h2"), document.querySelector("article [aria-live]").textContent];
  }
  const out = document.createElement("pre");
  out.id = "probe";
  out.textContent = JSON.stringify(found);
  document.body.append(out);
}, 200));
</script></body>"""


def test_the_page_of_signals_is_grouped_and_searched_in_a_browser(site: Path, tmp_path: Path) -> None:
    """As built: all signals under the groups of the field at first, then those that a word leads to, or its line."""
    browser = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if browser is None:
        pytest.skip("needs Chromium")
    page = site / "reference" / "signals.html"
    probed = page.with_name("probed.html")
    probed.write_text(page.read_text(encoding="utf-8").replace("</body>", PROBE), encoding="utf-8")
    command = [
        browser, "--headless", "--no-sandbox", "--disable-gpu", "--allow-file-access-from-files",
        f"--user-data-dir={tmp_path}/profile", "--virtual-time-budget=8000", "--dump-dom", probed.as_uri(),
    ]  # fmt: skip
    dumped = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True).stdout
    probed.unlink()
    found = json.loads(dumped.split('<pre id="probe">')[1].split("</pre>")[0])
    words, count = "by-the-fields-word", len(CATALOGUE)
    groups = ["loss", "exposure", "market", "venue", "system", "ownership", "position"]
    assert found["before"] == [count, [words, "index", *(f"group-{each}" for each in groups)]]
    assert found["herfindahl"] == [["exposure-herfindahl"], [words, "group-exposure"], f"1 of {count} signals"]
    assert found["depeg"][1][0] == words
    assert found["xyzzy"] == [[], [], f"0 of {count} signals"]
