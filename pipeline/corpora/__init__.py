"""Data on disk → canonical sample tables."""
