"""Experiment-tracked face analysis on a frozen VGG19."""
