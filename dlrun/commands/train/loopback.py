"""A meeting place for the processes of one machine, which no other machine reaches.

torch's own listens on all networks, and whoever connects to it can have its processes run code: it has no password,
and what they keep there is pickled.
"""

from __future__ import annotations

import os
import socket
from datetime import timedelta

import psutil
from torch.distributed import PrefixStore, TCPStore  # type: ignore[attr-defined]
from torch.distributed.elastic.rendezvous import (
    RendezvousHandler,
    RendezvousInfo,
    RendezvousParameters,
    RendezvousStoreInfo,
    rendezvous_handler_registry,
)

BACKEND = "dlrun-loopback"
HOST = "127.0.0.1"
DAY = timedelta(days=1)


class Loopback(RendezvousHandler):
    """The only machine of a run: it waits for nobody."""

    def __init__(self, run_id: str) -> None:
        self._run_id = run_id
        listener = socket.create_server((HOST, 0))
        self._port = listener.getsockname()[1]
        # the store closes it
        self._store = TCPStore(
            HOST, self._port, is_master=True, wait_for_workers=False, timeout=DAY, master_listen_fd=listener.detach()
        )

    def get_backend(self) -> str:
        return BACKEND

    @property
    def use_agent_store(self) -> bool:
        return True

    def next_rendezvous(self) -> RendezvousInfo:
        place = RendezvousStoreInfo(HOST, self._port)
        return RendezvousInfo(PrefixStore(self._run_id, self._store), 0, 1, place)

    def is_closed(self) -> bool:
        return False

    def set_closed(self) -> None:
        """Leave it open: it ends with its process."""

    def num_nodes_waiting(self) -> int:
        return 0

    def get_run_id(self) -> str:
        return self._run_id

    def shutdown(self) -> bool:
        return True


def stay_on_loopback() -> None:
    """Have processes of this machine meet, and send each other their gradients, on 127.0.0.1 alone.

    The variables of gloo and NCCL that the user has set hold.
    """
    rendezvous_handler_registry.register(BACKEND, _create)
    for name, addresses in psutil.net_if_addrs().items():
        if any(each.address == HOST for each in addresses):
            os.environ.setdefault("GLOO_SOCKET_IFNAME", name)
            os.environ.setdefault("NCCL_SOCKET_IFNAME", name)
            return


def _create(parameters: RendezvousParameters) -> RendezvousHandler:
    return Loopback(parameters.run_id)
