"""Tests of celebflow.data."""
