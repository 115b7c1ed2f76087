"""A residue: its type, its angles, its frame and its side chain. No file, no table."""
