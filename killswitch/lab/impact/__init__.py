"""Replays of two policy sets over the same spans of prices and recordings, and what differs between them."""
