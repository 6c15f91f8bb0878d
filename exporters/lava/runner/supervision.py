"""Work in a child process with a time limit, that leaves nothing behind.

A process of Lava that raises leaves the others waiting for ever. So the work and all processes that
it makes form a process group of their own, which is ended when the time is up, when the work has
failed, and when this process itself is gone.
"""

from __future__ import annotations

import multiprocessing
import os
import shutil
import signal
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from pathlib import Path

# What a group is given to end by itself before it is killed. Where nobody collects the processes
# that ended, all of it is waited.
GRACE_SECONDS = 1.0

Work = Callable[[Path], None]


class RunError(Exception):
    """A run that did not work out; the message is one line, for people."""


def supervised(work: Work, seconds: float) -> None:
    """Call ``work`` with a scratch folder, in a forked child process, for at most ``seconds``.

    Raises
    ------
    RunError
        If it fails or does not end in time.
    """
    context = multiprocessing.get_context("fork")
    receiver, sender = context.Pipe(duplex=False)
    lifeline = os.pipe()
    with tempfile.TemporaryDirectory(prefix="lava_runner_") as name:
        folder = Path(name)
        child = context.Process(target=_in_child, args=(work, folder, sender, lifeline))
        child.start()
        assert child.pid is not None
        # The child does the same; whichever comes first, the group is there when it is needed.
        with suppress(ProcessLookupError):
            os.setpgid(child.pid, child.pid)
        sender.close()
        os.close(lifeline[0])
        message = "interrupted"
        try:
            if receiver.poll(seconds):
                message = receiver.recv()
            else:
                message = f"did not end in {seconds:g} s, and was ended"
        except EOFError:
            message = "ended without a word"
        finally:
            _end_group(child, patiently=bool(message))
            os.close(lifeline[1])
            receiver.close()
        if message:
            raise RunError(message)


def _in_child(work: Work, folder: Path, sender: Connection, lifeline: tuple[int, int]) -> None:
    """Do the work and send what went wrong: nothing or one line."""
    os.setpgid(0, 0)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    os.close(lifeline[1])
    threading.Thread(target=_end_with, args=(lifeline[0], folder), daemon=True).start()
    _silence()
    # Whatever makes temporary files makes them where they are removed.
    tempfile.tempdir = str(folder)
    message = ""
    try:
        work(folder)
    except RunError as error:
        message = str(error)
    except Exception as error:  # whatever Lava raises
        message = f"{type(error).__name__}: {error}"
    sender.send(" ".join(message.split()))
    os._exit(1 if message else 0)


def _silence() -> None:
    """Let nothing that is printed, by Lava or its processes, come among the runner's own lines."""
    sys.stdout.flush()
    sys.stderr.flush()
    nowhere = os.open(os.devnull, os.O_WRONLY)
    for stream in (1, 2):
        os.dup2(nowhere, stream)


def _end_with(lifeline: int, folder: Path) -> None:
    """End this process group when the other end of the pipe is closed: its owner has ended."""
    os.read(lifeline, 1)
    shutil.rmtree(folder, ignore_errors=True)
    os.killpg(0, signal.SIGTERM)


def _end_group(child: BaseProcess, patiently: bool) -> None:
    """End a child and all that it started.

    They get SIGTERM first, which Python's resource tracker ignores: it outlives the others, and
    removes the shared memory that they leave behind.
    """
    assert child.pid is not None
    with suppress(ProcessLookupError):
        os.killpg(child.pid, signal.SIGTERM)
        deadline = time.monotonic() + GRACE_SECONDS
        while patiently and time.monotonic() < deadline:
            child.join(0.02)
            os.killpg(child.pid, 0)
        os.killpg(child.pid, signal.SIGKILL)
    child.join()
