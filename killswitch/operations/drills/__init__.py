"""Drills: rehearsals of the whole way from a crash to a flat book, measured against targets."""
