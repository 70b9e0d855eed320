"""Metrics: one function each, of pictures or of features that somebody else computed."""
