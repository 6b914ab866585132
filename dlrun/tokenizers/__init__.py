"""Tokenizers: text ↔ tokens, one small file each."""
