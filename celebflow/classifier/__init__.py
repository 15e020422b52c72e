"""The classifier on top of the frozen features: preprocessing, head, training, calibration."""
