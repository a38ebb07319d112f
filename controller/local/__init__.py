"""Local mode: the object store, the process runner and the router that stand in for a cluster."""
