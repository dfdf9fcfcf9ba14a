"""A process killed in the middle of an index call: all of the document or none of it."""

import signal
import subprocess
import sys

import pytest

from memory.models import MemoryChunk, MemoryVector, Tenant
from memory.rls import tenant_transaction
from memory.rotation.integrity import inspect_all
from tests.children import child_environment
from tests.factories import ALICE, recall, remember, texts

# Stands still at the step named on its command line, says so, and waits to be killed there.
CHILD = """
import sys, time
import django
django.setup()
from memory import indexing
from memory.index import tables
from memory.index.tables import Table
from tests.factories import remember

def stand_still(*args):
    print("here", flush=True)
    time.sleep(60)

step = sys.argv[1]
if step == "between statements":
    tables.ROWS = 1
    real, calls = Table.inserting, []
    def third_stands_still(*args):
        calls.append(1)
        return real(*args) if len(calls) < 4 else stand_still()
    Table.inserting = third_stands_still
elif step == "before commit":
    indexing.tenant_row.change_rows = stand_still
else:
    indexing._delete_old = stand_still
remember("person:1", "doc", "new one", "new two", "new three", "new four")
"""


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("before", [[], ["old one", "old two"]], ids=["first write", "replacing"])
@pytest.mark.parametrize("step", ["before the delete", "between statements", "before commit"])
def test_killed_in_the_middle(step: str, before: list[str]) -> None:
    if before:
        remember(ALICE, "doc", *before)
    command = [sys.executable, "-c", CHILD, step]
    with subprocess.Popen(command, env=child_environment(), stdout=subprocess.PIPE, text=True) as child:
        assert child.stdout
        assert child.stdout.readline() == "here\n"
        child.send_signal(signal.SIGKILL)
    assert sorted(texts(recall(ALICE, "new one"))) == before
    with tenant_transaction(ALICE):
        assert MemoryChunk.objects.count() == MemoryVector.objects.count() == len(before)
        assert [tenant.chunk_count for tenant in Tenant.objects.all()] == ([len(before)] if before else [])
    assert not inspect_all().found  # the digest of the set of rows among all else
    # The dead writer holds no lock: the next one goes through.
    remember(ALICE, "doc", "afterwards")
    assert not inspect_all().found
    assert texts(recall(ALICE, "afterwards")) == ["afterwards"]
