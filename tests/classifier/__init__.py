"""Tests of celebflow.classifier."""
