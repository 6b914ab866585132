"""Lines, tables and progress for people."""
