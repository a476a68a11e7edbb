"""Figures that say how good pictures are. Arrays in, numbers out."""
