"""How a run is written to TensorBoard: event files, in a folder for each run."""
