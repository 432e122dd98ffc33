"""Loops in the background, each around a decision that is made elsewhere."""
