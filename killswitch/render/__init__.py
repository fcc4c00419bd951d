"""Formats, text layout and charts. Imports nothing above the model."""
