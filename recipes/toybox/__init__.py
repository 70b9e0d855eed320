"""The toybox: a small text-to-image model trained from nothing on pictures of the rendered toy world."""
