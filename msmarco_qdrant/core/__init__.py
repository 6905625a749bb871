"""Values without I/O: passages, hits, reports and settings."""
