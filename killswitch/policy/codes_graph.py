"""Pages of the codes about references, expressions and the graph: KS3xxx, KS4xxx, KS5xxx."""

from __future__ import annotations

from killswitch.policy.page import Page

PAGES: tuple[Page, ...] = ()
