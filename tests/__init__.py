"""Tests, a file a module; test_pipeline.py runs the real DVC."""
