"""What performs the effects of decisions."""
