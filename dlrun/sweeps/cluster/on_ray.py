"""Ray: a task a worker process, on any machine of the cluster."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from typing import Any

from omegaconf import DictConfig, OmegaConf

from dlrun.errors import DlrunError, MissingModule, UserError
from dlrun.sweeps.cluster.executor import Submitted


class RayExecutor:
    """Submits to a Ray cluster, which it joins or starts with `ray.init`.

    A worker process makes one task and ends: a job leaves nothing behind in the next one's, on a GPU neither.
    """

    name = "ray"
    # Ray ends the tasks of a driver that has ended
    survives = False
    queues = True

    def __init__(self, launcher: DictConfig) -> None:
        plain: Any = OmegaConf.to_container(launcher, resolve=True)
        given = plain.get("ray") or {}
        self._remote = {"max_calls": 1, **_given(given.get("remote"))}
        self._init = _given(given.get("init"))
        self._ray: Any = None

    @property
    def width(self) -> int:
        """As many tasks as the cluster has room for, by the processors and GPUs that each asks for."""
        has = self._start().cluster_resources()
        wanted = {"CPU": self._remote.get("num_cpus", 1), "GPU": self._remote.get("num_gpus", 0)}
        rooms = [int(has.get(kind, 0) // each) for kind, each in wanted.items() if each]
        return max(1, min(rooms, default=1))

    def submit(self, calls: Sequence[Callable[[], None]]) -> list[Submitted]:
        ray = self._start()
        try:
            make = ray.remote(**self._remote)(_make)
            return [_RayTask(ray, make.remote(call)) for call in calls]
        except (TypeError, ValueError) as error:
            raise UserError(f"hydra.launcher.ray.remote: {' '.join(str(error).split())}") from error

    def find(self, id: str) -> Submitted | None:
        """None: the tasks of an earlier process have ended with it."""
        return None

    def _alone(self) -> dict[str, Any]:
        # of a cluster that ends with the command nobody looks at the pages; and one that is joined has its own
        joins = self._init.get("address") or os.environ.get("RAY_ADDRESS")
        return {} if joins else {"include_dashboard": False}

    def _start(self) -> Any:
        if self._ray is not None:
            return self._ray
        # Ray would hide the GPUs of a task that asks for none, and says that this changes
        os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
        check()
        import ray

        if not ray.is_initialized():
            try:
                # the lines of jobs are in their logs
                ray.init(**{"log_to_driver": False, **self._alone(), **self._init})
            except (ConnectionError, ValueError, TypeError) as error:
                raise UserError(f"hydra.launcher.ray.init: {' '.join(str(error).split())}") from error
            except Exception as error:
                # Ray's own: a part of it that has not started in time
                raise DlrunError(f"Ray could not be started: {' '.join(str(error).split())}") from error
        self._ray = ray
        return ray


def check() -> None:
    """Raise `MissingModule` if Ray is not installed."""
    try:
        import ray  # noqa: F401
    except ImportError:
        raise MissingModule("hydra/launcher=ray needs Ray. Type: pip install 'dlrun[ray]'") from None


class _RayTask:
    def __init__(self, ray: Any, reference: Any) -> None:
        self._ray, self._reference = ray, reference
        self.id: str = reference.hex()

    def lives(self) -> bool:
        return not self._ray.wait([self._reference], timeout=0)[0]

    def why(self) -> str:
        """What has ended it: a machine that is gone, too little memory."""
        try:
            self._ray.get(self._reference, timeout=0)
        except Exception as error:
            return f"ended by Ray: {type(error).__name__}: {' '.join(str(error).split())[:300]}"
        return "ended without an answer"

    def withdraw(self) -> bool:
        # nobody can say whether it has begun
        return False

    def kill(self) -> None:
        with suppress(Exception):
            self._ray.cancel(self._reference, force=True)


def _make(call: Callable[[], None]) -> None:
    call()


def _given(settings: Mapping[str, Any] | None) -> dict[str, Any]:
    return {str(key): value for key, value in (settings or {}).items() if value is not None}
