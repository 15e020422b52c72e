"""Photographs: find, check, decode, group, and split them."""
