"""Reversible surgery on loaded models: learnt weights, words, attention, low rank, input channels."""
