"""Policies from the configurations of other tools, with a report of every setting."""
