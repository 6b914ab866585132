"""What the processes of a run send each other, and who else can reach them."""

from __future__ import annotations

import os
from datetime import timedelta
from pathlib import Path

import psutil
import pytest
import torch
from torch.distributed import TCPStore  # type: ignore[attr-defined]

from dlrun.commands.train.loopback import HOST, Loopback, stay_on_loopback
from dlrun.errors import RunError
from dlrun.execution.ranks.messages import _pack, _unpack


class Evil:
    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.mkdir, ("made",)


def test_processes_of_one_machine_meet_where_no_other_machine_reaches() -> None:
    before = {each.laddr for each in psutil.Process().net_connections("tcp")}
    meeting = Loopback("run")
    # on another machine's network torch's own would be seen as `*`
    opened = [
        e.laddr for e in psutil.Process().net_connections("tcp") if e.laddr not in before and e.status == "LISTEN"
    ]
    assert [each.ip for each in opened] == [HOST]
    found = meeting.next_rendezvous()
    found.store.set("name", "value")
    place = found.bootstrap_store_info
    assert place is not None and (place.master_addr, place.master_port) == (HOST, opened[0].port)
    other = TCPStore(HOST, place.master_port, is_master=False, wait_for_workers=False, timeout=timedelta(seconds=9))
    assert other.get("run/name") == b"value"


def test_gradients_stay_on_this_machine_unless_the_user_says_otherwise(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GLOO_SOCKET_IFNAME", "")
    monkeypatch.delenv("GLOO_SOCKET_IFNAME")
    monkeypatch.setenv("NCCL_SOCKET_IFNAME", "eth7")
    stay_on_loopback()
    stay_on_loopback()
    name = os.environ["GLOO_SOCKET_IFNAME"]
    assert HOST in {each.address for each in psutil.net_if_addrs()[name]}
    assert os.environ["NCCL_SOCKET_IFNAME"] == "eth7"


@pytest.mark.parametrize(
    "content", [None, "a", b"", b"\0ab", {"a": [1, (2.5, None)]}, [{"x": (torch.ones(2).double(), 3)}]]
)
def test_processes_send_each_other_plain_values(content: object) -> None:
    assert str(_unpack(_pack(content))) == str(content)


def test_what_a_process_sends_runs_no_code(here: object) -> None:
    with pytest.raises(RunError, match="plain values"):
        _unpack(_pack([Evil()]))
    assert not Path("made").exists()
