"""Boxes, tiles and symmetries of a cubic parent."""
