"""docs/security.md: every promise names the tests behind it, they exist, and its mutants are those that run."""

import re
from pathlib import Path

import pytest

from tests.attacks.mutants import kinds

ROOT = Path(__file__).resolve().parent.parent.parent
PAGE = (ROOT / "docs" / "security.md").read_text()
PROMISES, _, NOT_SHOWN = PAGE.partition("## What is not shown here")
LINKS = re.findall(r"\[(test_\w+)\]\(\.\./(tests/[\w/]+\.py)\)", PAGE)
ITEMS = re.findall(r"^- (.*(?:\n  .*)*)", PROMISES, re.M)


@pytest.mark.parametrize(("name", "path"), sorted(set(LINKS)))
def test_a_named_test_exists(name: str, path: str) -> None:
    assert re.search(rf"^ *def {name}\(", (ROOT / path).read_text(), re.M)


def test_every_item_names_a_test() -> None:
    assert len(ITEMS) > 25
    assert not [item for item in ITEMS if not re.search(r"\[test_\w+\]\(", item)]


def test_every_link_leads_somewhere() -> None:
    targets = {target.partition("#")[0] for target in re.findall(r"\]\(([^)]+)\)", PAGE)}
    assert not [target for target in targets if not (ROOT / "docs" / target).exists()]


def test_the_list_of_mutants_is_the_one_that_runs() -> None:
    _, _, table = PAGE.partition("\n| Mutants | Killed by |\n")
    listed = re.findall(r"^\| ([^|]+) \| `(\w+)` \|$", table.partition("\n\n")[0], re.M)
    assert listed == [(kind.name, kind.killed_by.__name__) for kind in kinds()]
