"""The pods of a training Job: fetch, train, predict, evaluate.  May be heavy."""
