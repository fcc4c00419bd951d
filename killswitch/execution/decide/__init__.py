"""What the next step of a close may be. Pure."""
