"""What a venue's limits let through, and when."""
