"""The toy world: scenes as values, their renderer, their captions and instructions."""
