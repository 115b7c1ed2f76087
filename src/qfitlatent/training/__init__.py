"""Weights, resumable to the byte."""
