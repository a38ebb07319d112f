"""The decisions.  Pure: data in, data out; no I/O, clock, randomness or environment."""
