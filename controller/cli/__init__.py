"""The desk: one file per verb."""
