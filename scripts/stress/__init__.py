"""Programs that try to break runs."""
