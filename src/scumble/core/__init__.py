"""What everything else stands on: errors, config, random numbers, images, run folders."""
