"""What there is to send of a run or a sweep, read from its folder."""
