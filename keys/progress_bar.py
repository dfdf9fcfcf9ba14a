"""A rotation's progress on a terminal: one bar a phase, with rate and time left. Elsewhere it shows nothing."""

from types import TracebackType
from typing import Any

from tqdm import tqdm

from keys.models import RotationRun


class ProgressBar:
    """Shows a run as it advances; `show` is what `rotate(report=…)` takes."""

    def __init__(self) -> None:
        self._bar: tqdm[Any] | None = None
        self._phase = ""

    def show(self, run: RotationRun) -> None:
        """Draw the run as it is now."""
        if run.phase != self._phase or self._bar is None:
            self.close()
            self._phase = run.phase
            self._bar = tqdm(
                total=run.rows_total, initial=run.rows_done, desc=run.phase, unit=" rows", disable=None, smoothing=0.1
            )
        self._bar.update(run.rows_done - self._bar.n)

    def close(self) -> None:
        """Keep the bar as it is and go to the next line."""
        if self._bar is not None:
            self._bar.close()
            self._bar = None

    def __enter__(self) -> "ProgressBar":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
