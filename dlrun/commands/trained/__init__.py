"""What is done with trained runs, a file a command."""
