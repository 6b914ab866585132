"""MLflow's pages: their addresses, and what they show when `dlrun ui` opens them."""
