"""Densities of chi: kernels, mixtures, libraries and the loss. Torch begins here."""
