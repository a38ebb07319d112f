"""One file per library that reads models; each is imported only when a model of its format is loaded."""
