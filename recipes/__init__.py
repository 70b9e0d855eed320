"""Recipes: how the weights that ship with the package are made."""
