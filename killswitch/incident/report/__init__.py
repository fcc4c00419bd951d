"""Reports and runbooks: templates, their checks, and rendering."""
