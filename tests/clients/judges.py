"""The environment of its own in which others' suites and packages run: `make judges`."""

from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
JUDGES = ROOT / "clients" / "python" / "judges"
PYTHON = ROOT / ".venv-judges" / "bin" / "python"
needs_judges = pytest.mark.skipif(not PYTHON.exists(), reason="no .venv-judges: run `make judges` first")
