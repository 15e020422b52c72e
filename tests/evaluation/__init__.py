"""Tests of celebflow.evaluation."""
