"""A page as one self-contained HTML file: it asks nothing of anybody, and reads on a phone and in the dark."""

from __future__ import annotations

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from killswitch.lab.pages.parts import Page


def html(page: Page) -> str:
    """The file. Every text is escaped; only charts, which this program drew, go in as they are."""
    loader = PackageLoader("killswitch.lab.pages", "")
    environment = Environment(
        loader=loader, autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    return environment.get_template("page.html.j2").render(page=page, drawing=Markup)
