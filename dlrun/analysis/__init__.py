"""What finished runs show: statistics and figures."""
