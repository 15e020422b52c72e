"""Tests of celebflow.report."""
