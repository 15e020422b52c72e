"""The whole pipeline on few photographs: git, DVC and MLflow are real, and each test has a repository of its own."""
