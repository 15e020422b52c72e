"""Tests of celebflow.experiments."""
