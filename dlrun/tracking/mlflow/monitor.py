"""MLflow's metrics of processor, memory and GPU (`tracking.system_metrics`)."""

from __future__ import annotations

from typing import Any, Protocol

from dlrun.tracking.content.run_source import RunSource
from dlrun.tracking.content.state import has_ended
from dlrun.tracking.mlflow.names.address import Address


class Monitor(Protocol):
    """A thread that measures and sends."""

    def start(self) -> None:
        """Begin."""

    def finish(self) -> None:
        """End; a second call does nothing."""


def start_monitor(source: RunSource, run_id: str, address: Address) -> Monitor | None:
    """Start measuring, unless the run ended or wants none."""
    if not source.setting("system_metrics", False) or has_ended(source.run):
        return None
    from mlflow.system_metrics.system_metrics_monitor import SystemMetricsMonitor

    make: Any = SystemMetricsMonitor
    try:
        monitor: Monitor = make(run_id, resume_logging=True, tracking_uri=address.reveal())
    except ImportError:  # psutil is not installed: `check` said so before the training
        return None
    monitor.start()
    return monitor
