"""The measures: arrays in, numbers out."""
