"""Shipped policy sets with one mistake each, and which tool finds it: declared before anything is run."""
