"""Rendering primitives: number formats and charts. Imports nothing above the model."""
