"""What a sweep came to: pages, tables and figures in its folder, and the few lines that a terminal shows."""
