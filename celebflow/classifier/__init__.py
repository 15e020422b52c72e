"""What is trained on the features."""
