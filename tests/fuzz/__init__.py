"""Readers of files from strangers, given files that are made wrong on purpose.

`python -m tests.fuzz --minutes 10 [READER…]` (or `make fuzz`) looks for long; `test_readers.py` reads a few.
"""
