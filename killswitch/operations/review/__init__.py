"""The review of a candidate against the set in force, in a process of its own with limits."""
