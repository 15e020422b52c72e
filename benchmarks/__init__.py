"""How fast celebflow is, against a plain script."""
