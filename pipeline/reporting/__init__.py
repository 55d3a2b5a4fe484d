"""A finished run as pages to read: the report of all of it, and galleries of its mistakes."""
