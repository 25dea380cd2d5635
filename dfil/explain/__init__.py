"""Figures 2 to 5, and what is measured of them."""
