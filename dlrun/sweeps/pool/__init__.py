"""Jobs in processes of their own: slots, workers, the server that they are forked from."""
