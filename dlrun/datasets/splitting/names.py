"""Words for the splits, as files, folders and cells have them."""

SPELLINGS = {
    **dict.fromkeys(("train", "training", "trn"), "train"),
    **dict.fromkeys(("valid", "validation", "val", "dev", "devel", "development"), "validation"),
    **dict.fromkeys(("test", "testing", "tst"), "test"),
}
"""A split by each word that it is called by."""
