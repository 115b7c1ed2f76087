"""What any program needs: errors, files, progress, jobs, provenance, configuration."""
