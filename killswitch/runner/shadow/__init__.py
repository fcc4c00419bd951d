"""Policy sets that are evaluated next to the deployed one, and act on nothing."""
