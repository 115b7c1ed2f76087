"""What can go wrong, said to the user."""


class QfitLatentError(Exception):
    """One sentence for the user: what is wrong, where, and what to do."""
