"""A finished run as pages to read: the report of all of it, and galleries of its mistakes."""

from pathlib import Path

TEMPLATES = Path(__file__).parent / "templates"
"""Pages, and the style that those of the server have too."""
