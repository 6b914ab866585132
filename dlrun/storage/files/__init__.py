"""Files that several processes share, or that somebody else may have made: opened, replaced, locked, waited for."""
