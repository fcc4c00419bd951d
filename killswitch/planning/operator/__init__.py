"""Operator commands and saved plans as decisions."""
