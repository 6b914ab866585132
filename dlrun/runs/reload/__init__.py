"""A run taken up again from its folder: whole, its model alone, or for a notebook."""
