"""`manage.py reindex`: rebuild vectors, keywords and labels from the seals, tenant by tenant, while serving."""

from argparse import ArgumentParser
from typing import Any

from django.core.management.base import BaseCommand, CommandError
from tqdm import tqdm

from keys.exceptions import LeaseTaken
from memory.exceptions import EmbeddingModelUnavailable
from memory.index.recipe import configured
from memory.index.reindexing import Indexed, Reindexed, outgrown, rebuild_graph, reindex_tenant, tenants
from memory.index.tenant_reindex import NotOurs, Overtaken


class Command(BaseCommand):
    help = (
        "Bring every tenant to the configured embedding model, rotation, keyword analysis, filterable metadata and form"
        " of names, and move what has outgrown the exact scan into the indexes. Online; a run that was stopped is"
        " simply run again."
    )

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("--status", action="store_true", help="only say what there is to do")
        parser.add_argument("--all", action="store_true", help="also tenants that are up to date")
        parser.add_argument("--graph", action="store_true", help="rebuild the vector graph too (REINDEX CONCURRENTLY)")
        parser.add_argument(
            "--keep-embeddings",
            action="store_true",
            help="never embed texts anew: the embeddings are the clients' own, whatever MEMORY_EMBEDDING_MODEL says",
        )

    def handle(self, *args: Any, status: bool, all: bool, graph: bool, keep_embeddings: bool, **options: Any) -> None:
        todo = [tenant for tenant in tenants() if all or tenant.is_stale or outgrown(tenant)]
        stale = sum(tenant.is_stale for tenant in todo)
        self.stdout.write(f"Configured: {configured().as_text()}\n{stale} tenants were indexed otherwise.")
        if status:
            return
        try:
            done = self._reindex(todo, all, keep_embeddings, bar=bool(options["verbosity"]))
        except EmbeddingModelUnavailable as error:
            raise CommandError(str(error)) from None
        if graph:
            rebuild_graph()
            self.stdout.write("The vector graph is rebuilt.")
        self.stdout.write(f"{done.rows} rows rebuilt, {done.moved} moved into the indexes.")
        for left in self._left:
            self.stderr.write(left)
        if self._left:
            raise CommandError(f"{len(self._left)} tenants were left as they are, see above: run this again.")
        if done.unreadable:
            raise CommandError(f"{done.unreadable} rows do not open and stay as they were: see verify_integrity.")

    def _reindex(self, todo: list[Indexed], force: bool, keep_embeddings: bool, *, bar: bool) -> Reindexed:
        self._left: list[str] = []
        total = Reindexed()
        size = sum(tenant.chunk_count for tenant in todo if force or tenant.is_stale)
        with tqdm(total=size, unit="rows", desc="reindex", disable=not bar, mininterval=0.5) as shown:
            for tenant in todo:
                try:
                    done = reindex_tenant(
                        tenant.user_hash, force=force, keep_embeddings=keep_embeddings, progress=shown.update
                    )
                except (LeaseTaken, NotOurs, Overtaken) as reason:
                    self._left.append(f"tenant {tenant.user_hash[:8]}: {reason}")
                    continue
                total = Reindexed(total.rows + done.rows, total.unreadable + done.unreadable, total.moved + done.moved)
        return total
