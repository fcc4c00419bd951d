"""Pages as self-contained HTML, without scripts or other files, readable on a phone and in the dark."""

from __future__ import annotations

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from killswitch.content import runbooks_folder
from killswitch.render.document import Page


def html(page: Page) -> str:
    """Return the page as HTML. Every text is escaped; only charts, which this program drew, are inserted as they
    are."""
    return html_page("page.html.j2", page=page, drawing=Markup, kind=lambda part: type(part).__name__)


def html_page(template: str, **context: object) -> str:
    """Render a template of this package with `context`, of which only Markup is not escaped."""
    environment = Environment(
        loader=PackageLoader("killswitch.render", ""),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    style = Markup((runbooks_folder() / "page.css").read_text(encoding="utf-8"))
    return environment.get_template(template).render(style=style, **context)
