"""Files of tables: CSV, TSV, Parquet, ARFF; their columns as arrays of pyarrow."""
