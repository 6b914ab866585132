"""Tokenizers: text ↔ tokens, a file each, chosen by name in `dataset.tokenizer`."""
