"""One program in several processes of this machine, as ``torchrun`` starts it; a hang ends, and says where it was."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence


def run_ranks(arguments: Sequence[object], world: int = 2, seconds: float = 180) -> list[str]:
    """Run ``python *arguments`` as each of ``world`` ranks of a process group on this machine's CPU.

    Args:
        arguments: what follows ``python``: a script or ``-m module``, and its arguments.
        world: the number of processes.
        seconds: after so long a process that still runs writes where each of its threads is, and is ended.

    Returns:
        What each rank wrote, standard output and errors together.

    Raises:
        AssertionError: a rank failed or ran too long; the message has what all of them wrote.
    """
    with tempfile.TemporaryDirectory() as folder:
        paths = [f"{folder}/{rank}" for rank in range(world)]
        shared = _environment(world)
        ranks = [_start(arguments, {**shared, "RANK": str(i), "LOCAL_RANK": str(i)}, paths[i]) for i in range(world)]
        _await(ranks, time.monotonic() + seconds)
        written = []
        for path in paths:
            with open(path, errors="replace") as file:
                written.append(file.read())
    codes = [rank.returncode for rank in ranks]
    assert not any(codes), f"exit codes {codes} after at most {seconds} s\n" + "\n".join(written)
    return written


def _environment(world: int) -> dict[str, str]:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    loopback = {"linux": "lo", "darwin": "lo0"}.get(sys.platform)
    return {
        **os.environ,
        "WORLD_SIZE": str(world),
        "LOCAL_WORLD_SIZE": str(world),
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port),
        # The host's own name need not lead anywhere.
        **({"GLOO_SOCKET_IFNAME": loopback} if loopback else {}),
        "OMP_NUM_THREADS": "1",
        "CUDA_VISIBLE_DEVICES": "",
        "PYTHONFAULTHANDLER": "1",
    }


def _start(arguments: Sequence[object], environment: dict[str, str], output: str) -> subprocess.Popen[bytes]:
    with open(output, "wb") as file:
        return subprocess.Popen(
            [sys.executable, *map(str, arguments)], stdout=file, stderr=subprocess.STDOUT, env=environment
        )


def _await(ranks: Sequence[subprocess.Popen[bytes]], deadline: float) -> None:
    """Wait for all; at the deadline, or a while after one has failed, end the rest."""
    failed = False
    while any(rank.poll() is None for rank in ranks) and time.monotonic() < deadline:
        if not failed and any(rank.returncode for rank in ranks):
            failed, deadline = True, min(deadline, time.monotonic() + 10)
        time.sleep(0.05)
    for ending in (signal.SIGABRT, signal.SIGKILL):  # the first makes faulthandler write where each thread is
        for rank in ranks:
            rank.send_signal(ending)  # to one that has ended it does nothing
        for rank in ranks:
            with contextlib.suppress(subprocess.TimeoutExpired):
                rank.wait(10)
