"""Results in MLflow, with what made them."""
