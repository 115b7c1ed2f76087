"""Entries whose truth is known."""
