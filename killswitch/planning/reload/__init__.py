"""State across a reload: which policy, stage and trigger of a set continues which of the set before."""
