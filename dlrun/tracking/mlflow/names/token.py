"""A token in a file, which others may renew while runs are trained."""

from __future__ import annotations

import os
from pathlib import Path

from dlrun.errors import UserError

VARIABLE = "DLRUN_TRACKING_TOKEN_FILE"


def read_token() -> None:
    """Have MLflow send the token that the file of `DLRUN_TRACKING_TOKEN_FILE` has now.

    MLflow reads MLFLOW_TRACKING_TOKEN for each call, but a process keeps the environment that it began with. Raises
    `UserError` if the file cannot be read.
    """
    if not (file := os.environ.get(VARIABLE)):
        return
    try:
        token = Path(file).expanduser().read_text(encoding="utf-8").strip()
    except (OSError, ValueError) as error:
        raise UserError(f"{VARIABLE} is `{file}`, which cannot be read: {error}.") from None
    if token:  # an empty one is being written
        os.environ["MLFLOW_TRACKING_TOKEN"] = token
