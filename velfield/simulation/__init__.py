"""Miniature universes: particles, halos and their catalogues."""
