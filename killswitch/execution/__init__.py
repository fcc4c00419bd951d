"""Execution of decisions: one executor per account sends journaled orders until positions are verified flat."""
