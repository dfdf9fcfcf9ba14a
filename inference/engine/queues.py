"""Jobs that wait: the first of each submitter in turns, so that nobody's many hold up somebody else's one."""

from collections import OrderedDict, deque
from collections.abc import Hashable, Iterator

from inference.engine.jobs import Job


class FairQueue:
    """A queue a submitter; whoever was served last is served last again. Used under the engine's lock."""

    def __init__(self) -> None:
        self._lines: OrderedDict[Hashable, deque[Job]] = OrderedDict()

    def __len__(self) -> int:
        return sum(map(len, self._lines.values()))

    def __iter__(self) -> Iterator[Job]:
        for line in self._lines.values():
            yield from line

    def append(self, job: Job) -> None:
        self._lines.setdefault(job.request.submitter, deque()).append(job)

    def next(self) -> Job | None:
        """The job whose turn it is, left in its place."""
        return next(iter(self), None)

    def pop(self) -> Job:
        """Take that job out. Raises StopIteration where none waits."""
        submitter, line = next(iter(self._lines.items()))
        job = line.popleft()
        self._lines.move_to_end(submitter)
        if not line:
            del self._lines[submitter]
        return job

    def remove(self, gone: set[Job]) -> None:
        for submitter, line in list(self._lines.items()):
            left = deque(job for job in line if job not in gone)
            if left:
                self._lines[submitter] = left
            else:
                del self._lines[submitter]

    def clear(self) -> None:
        self._lines.clear()
