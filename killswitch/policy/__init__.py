"""Policy documents as they are written: YAML, schema, checks and diagnostics."""
