"""Side chains that fit each other: joint states of a protein from the densities of residues."""
