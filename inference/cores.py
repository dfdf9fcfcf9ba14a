"""How many CPU threads one forward of a model gets, so that the processes of one server do not fight for cores."""

import os

_processes = 1


def share_between(processes: int) -> None:
    """This process is one of so many that work at the same time on the cores that it may use."""
    global _processes
    _processes = max(1, processes)


def own_cores() -> int:
    """This process's part of the cores: all of them in a command, in a server divided by its processes; at least 1."""
    return max(1, len(os.sched_getaffinity(0)) // _processes)
