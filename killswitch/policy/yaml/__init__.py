"""YAML texts as trees that know where they were written."""
