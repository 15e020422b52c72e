"""Photographs to features, each computed once."""
