"""Additions of the documentation site to the pages under docs/."""
