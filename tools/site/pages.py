"""MkDocs hooks that add every decision, venue and shipped policy set to the navigation, and a page for each policy set.

They also add the pages of measurements, which commands write and which may not exist yet.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

TEMPLATE = "0000-template.md"
DECISIONS = "Decisions"
HISTORY = "History"
POLICIES = "Policies"
VENUES = "Venues"
MEASURED = "Evidence"
MEASURED_PAGES = ("evidence.md", "benchmarks.md")


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """Fill the sections of the navigation that are lists of files. KeyError where the navigation lacks one."""
    root = Path(config.config_file_path).parent
    _fill(config, DECISIONS, _decisions(root / "docs"))
    venues = sorted(path.name for path in (root / "docs" / "venues").glob("*.md"))
    _fill(config, VENUES, [f"venues/{name}" for name in venues])
    _fill(config, MEASURED, [name for name in MEASURED_PAGES if (root / "docs" / name).exists()])
    _fill(config, POLICIES, [f"policies/{folder.name}.md" for folder in policy_sets(root)])
    return config


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the README of each policy set as a page of its own."""
    for folder in policy_sets(Path(config.config_file_path).parent):
        written = (folder / "README.md").read_text(encoding="utf-8")
        files.append(File.generated(config, f"policies/{folder.name}.md", content=as_page(written)))
    return files


def on_page_markdown(markdown: str, *, page: Page, config: MkDocsConfig, **_: object) -> str:
    """Replace links to code, which is not part of the site, by the name and the file; link names of policy sets."""
    linked = re.sub(r"\[(`[^`\]]+`)\]\((?:\.\./)+((?:killswitch|adapters)/[^)]*)\)", r"\1 (\2)", markdown)
    sets = [folder.name for folder in policy_sets(Path(config.config_file_path).parent)]
    return with_links_to_sets(linked, sets, page.file.src_uri)


def with_links_to_sets(markdown: str, sets: list[str], uri: str) -> str:
    """Link names of policy sets in code spans and table cells, except in headings, links, code and on its own page."""
    up = "../" * uri.count("/")
    others = "|".join(re.escape(name) for name in sets if uri != f"policies/{name}.md")
    name = re.compile(rf"(?<!\[)`({others})`(?!\])")
    cell = re.compile(rf"(?<=\| )({others})(?= *\|)")
    link = rf"[`\1`]({up}policies/\1.md)"
    lines, is_code = [], False
    for line in markdown.split("\n"):
        is_code ^= line.lstrip().startswith("```")
        kept = is_code or not others or line.startswith(("#", "```"))
        lines.append(line if kept else cell.sub(link.replace("`", ""), name.sub(link, line)))
    return "\n".join(lines)


def policy_sets(root: Path) -> list[Path]:
    """The folders of the shipped policy sets that have a README, in the order of their names."""
    return sorted(readme.parent for readme in (root / "policies").glob("*/README.md"))


def as_page(readme: str) -> str:
    """The README with its links converted for the site: to other sets, and to pages of docs/."""
    between_sets = re.sub(r"\]\(\.\./([a-z0-9-]+)/(?:README\.md)?(#[^)]*)?\)", r"](\1.md\2)", readme)
    return re.sub(r"\]\(\.\./\.\./docs/", "](../", between_sets)


def _decisions(docs: Path) -> list[str | dict[str, list[str]]]:
    """The index, the decisions that apply, and a subsection of the others."""

    def pages(folder: str) -> list[str]:
        return [f"{folder}/index.md", *sorted(f"{folder}/{path.name}" for path in (docs / folder).glob("[0-9]*.md"))]

    return [*(page for page in pages("adr") if not page.endswith(TEMPLATE)), {HISTORY: pages("adr/history")}]


def _fill(config: MkDocsConfig, section: str, pages: Sequence[str | dict[str, list[str]]]) -> None:
    for entry in config.nav or []:
        if isinstance(entry, dict) and section in entry:
            entry[section] = list(pages)
            return
    raise KeyError(f"mkdocs.yml has no section {section} in its navigation")
