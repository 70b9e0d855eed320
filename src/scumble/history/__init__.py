"""Where outputs come from: recipes in and out of files."""
