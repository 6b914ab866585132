"""From a Hydra configuration to checked parts: composition, allow list, signatures, settings."""
