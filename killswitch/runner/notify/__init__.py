"""Notifications and reports of a run, made beside the ticks."""
