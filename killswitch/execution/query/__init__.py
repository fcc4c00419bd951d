"""Queries what became of sent orders: orders in flight, orders of unknown status, fees."""
