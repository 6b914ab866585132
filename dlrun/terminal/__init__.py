"""What a person reads: lines, tables, progress."""
