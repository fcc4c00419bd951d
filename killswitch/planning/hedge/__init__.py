"""Positions that cannot be closed, and what hedges them."""
