"""What can go wrong, said to the user."""

from __future__ import annotations


class QfitLatentError(Exception):
    """One sentence for the user: what is wrong, where, and what to do."""
