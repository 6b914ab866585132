"""The jobs of a sweep, decided before the first one starts."""
