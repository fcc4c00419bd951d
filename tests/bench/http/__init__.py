"""Parts of the bench that speak HTTP to a real server on loopback."""
