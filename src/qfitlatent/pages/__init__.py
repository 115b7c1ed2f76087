"""Anything to look at: words, pages and pictures."""
