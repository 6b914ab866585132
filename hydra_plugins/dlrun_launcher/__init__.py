"""The launchers `local` and `batched`. Thin: every start of Hydra imports them."""
