"""What leaves for the venue: orders, cancels, requests."""
