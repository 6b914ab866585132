"""The launchers `slurm` and `ray`. Thin: every start of Hydra imports them."""
