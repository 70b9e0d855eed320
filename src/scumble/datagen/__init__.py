"""Data that methods make for themselves: what a class looks like to a model, and more."""
