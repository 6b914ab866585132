"""Programs that a person would write without dlrun, to be measured beside it."""
