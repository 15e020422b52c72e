"""Tests of celebflow.backbone."""
