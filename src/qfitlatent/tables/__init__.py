"""Columns declared once; tables written and joined."""
