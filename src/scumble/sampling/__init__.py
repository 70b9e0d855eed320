"""Text-to-image and image-to-image loops, their batches and previews."""
