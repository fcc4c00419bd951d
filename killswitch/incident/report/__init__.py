"""Reports and runbooks: templates, their checks, rendering."""
