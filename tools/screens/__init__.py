"""Pictures of the product as it looks, for `docs/screens.md`: terminals as SVG, pages as PNG."""
