"""The fits of the scaling laws, and their figures."""
