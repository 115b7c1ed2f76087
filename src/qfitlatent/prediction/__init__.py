"""A user's own structure: predictions, scores, samples and their files."""
