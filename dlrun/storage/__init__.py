"""The formats on disk: run folder, sweep folder, journal, checkpoint, summary, manifest, identity."""
