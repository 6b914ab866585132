"""Arguments that have a library run the code in a file."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from dlrun.errors import ConfigError

LOADING = {"timm": ("checkpoint_path", "pretrained_cfg", "pretrained_cfg_overlay")}
"""Arguments of a library whose files are unpickled, which runs code."""


def check_unpickling(target: Callable[..., Any], arguments: Mapping[str, Any], trusted: Sequence[str] = ()) -> None:
    """Raise `ConfigError` for an argument that names a file with code to run."""
    library = (getattr(target, "__module__", None) or "").split(".")[0]
    if library not in LOADING or library in trusted:
        return
    for key, value in arguments.items():
        # `local-dir:FOLDER` and `hf-hub:NAME` bring files of their own
        if value and (key in LOADING[library] or (key == "model_name" and ":" in str(value))):
            raise ConfigError(
                f"`{key}={value}`: {library} runs the code in such a file. If you trust it, type "
                f"`'trusted=[{library}]'`; a run of dlrun begins with the weights of another by `init_from`."
            )
