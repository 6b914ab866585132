"""The energy of a run: counters of the hardware, read off the loop's thread."""
