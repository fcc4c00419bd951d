"""The record of one incident, folded from the store: what reports and templates read."""
