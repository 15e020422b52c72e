"""Tests of celebflow.tracking."""
