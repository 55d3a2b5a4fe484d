"""Torch modules and losses; no params, paths or files."""
