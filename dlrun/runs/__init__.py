"""One run: built, trained, resumed, reloaded, scored."""
