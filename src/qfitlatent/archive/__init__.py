"""Which entries there are, and their files or a reason."""
