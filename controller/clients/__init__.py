"""The world: one file per outside system; each outside library is imported in one file only."""
