"""The launcher `batched`: small runs as one program. Thin, for every start of Hydra imports it."""

from __future__ import annotations

from typing import Any

from hydra.core.config_store import ConfigStore

from hydra_plugins.dlrun_launcher import local

# the settings of `local`, for the jobs that get processes of their own, and one more
KEYS = local.KEYS | {
    "_target_": "hydra_plugins.dlrun_launcher.batched.BatchedLauncher",
    "verify": 0,  # jobs that are trained alone too, and compared
}
ConfigStore.instance().store(group="hydra/launcher", name="batched", node=KEYS, provider="dlrun")


class BatchedLauncher(local.LocalLauncher):
    """Has dlrun stack jobs, and run short ones in its own process; another program's jobs run as by `local`."""

    stacks = True

    def __init__(self, verify: int = 0, **of_local: Any) -> None:
        super().__init__(**of_local)
        self.verify = verify
