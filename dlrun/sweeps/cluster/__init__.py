"""The jobs of a sweep on other machines: SLURM by submitit, and Ray."""
