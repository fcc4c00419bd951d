"""What became of what has left: orders in flight, orders of unknown fate, fees."""
