"""What goes wrong while a run trains: explained, cut to what the memory holds, or left out."""
