"""Loading and holding pretrained parts."""
