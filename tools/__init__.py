"""Repository tooling: what remakes checked-in pages and builds the site. Nothing here is shipped."""
