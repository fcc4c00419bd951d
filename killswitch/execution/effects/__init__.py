"""Performers of the effects of decisions."""
