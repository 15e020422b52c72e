"""Tests of celebflow.features."""
