"""A sweep's report: the pages, tables and figures in its folder, and the summary in the terminal."""
