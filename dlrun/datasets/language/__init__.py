"""Texts as data sets: corpus, tokens, windows."""
