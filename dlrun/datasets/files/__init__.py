"""Files of data sets: found, downloaded, checked, decoded."""
