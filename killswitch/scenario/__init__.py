"""Scenarios: tests of policies, from the file to the verdict and the coverage."""
