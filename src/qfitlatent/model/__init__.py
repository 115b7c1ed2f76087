"""The network: from frames and types to densities."""
