"""Traces, metrics and events of a run, for the tools that people already have."""
