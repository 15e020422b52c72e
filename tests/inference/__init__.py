"""Tests of celebflow.inference."""
