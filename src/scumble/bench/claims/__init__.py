"""The headline claims of the six papers, each as an experiment on the toybox that one command repeats."""
