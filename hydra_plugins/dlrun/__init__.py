"""What Hydra 1.3 looks for under `hydra_plugins`: thin, for every start of Hydra imports it."""
