"""Statistics and figures: pure functions of plain numbers, for runs, reports and studies."""
