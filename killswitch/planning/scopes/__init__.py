"""Policies on their scopes: evaluated every tick."""
