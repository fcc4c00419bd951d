"""Notifications and reports of a run, concurrent with its ticks."""
