"""Many files as one set."""
