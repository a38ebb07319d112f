"""The model at work: verify, load, predict, as a step of a Job and as a server."""
