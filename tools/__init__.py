"""Repository tooling, not shipped: it generates checked-in pages and builds the site."""
