"""How training samples are read: by workers, from data sets and from streams."""
