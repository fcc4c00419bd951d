"""A YAML parser that keeps source positions."""
