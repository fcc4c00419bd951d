"""Notifications: routing, grouping and delivery."""
