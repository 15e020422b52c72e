"""Photographs → features, each computed once."""
