"""Rebuilds what rows are found by from their seals: after a setting of the index changed, or when a graph lags behind.

Tenant by tenant (`memory.index.tenant_reindex`), under a lease for each: two runs at once share the tenants, and one
that was stopped is simply run again. The recipe in a tenant's row says whether it is done.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

from database.roles import census, connect_as
from keys.leases import hold
from memory.index.name_reindex import change_names
from memory.index.recipe import Recipe, configured, recorded
from memory.index.tail import GRAPH_INDEX, has_outgrown, index_tail
from memory.index.tenant_reindex import TenantReindex
from memory.rls import tenant_transaction_by_hash
from memory.tenancy import tenant_row
from memory.tenancy.cursors import binary_cursor

# Longer than a batch takes to embed, on a slow machine that does something else as well.
LEASE_SECONDS = 300.0

TENANTS = "SELECT user_hash, chunk_count, recipe FROM tenants WHERE user_hash > %s ORDER BY user_hash LIMIT 1000"


@dataclass(frozen=True)
class Indexed:
    """A tenant as the census sees it: its size and by which recipe its rows were made searchable."""

    user_hash: str
    chunk_count: int
    recipe: Recipe

    @property
    def is_stale(self) -> bool:
        """Whether the settings ask for another recipe."""
        return self.recipe != configured()


@dataclass(frozen=True)
class Reindexed:
    """What was done for one tenant; `unreadable` rows stay as they were."""

    rows: int = 0
    unreadable: int = 0
    moved: int = 0


def tenants() -> Iterator[Indexed]:
    """Every tenant. Raises ImproperlyConfigured without DATABASE_CENSUS_URL."""
    after = ""
    while True:
        with census() as cursor:
            cursor.execute(TENANTS, [after])
            page = [Indexed(user_hash, count, recorded(recipe)) for user_hash, count, recipe in cursor.fetchall()]
        yield from page
        if not page:
            return
        after = page[-1].user_hash


def reindex_tenant(
    user_hash: str,
    *,
    force: bool = False,
    keep_embeddings: bool = False,
    progress: Callable[[int], None] = lambda rows: None,
) -> Reindexed:
    """Bring one tenant to the configured recipe, then move what has outgrown the exact scan into the indexes.

    Texts are embedded anew when the model has changed, unless the embeddings are the clients' own and kept. `force`
    rebuilds a tenant that is up to date. `progress` is told of every batch. Raises EmbeddingModelUnavailable,
    LeaseTaken while another run works on the tenant, Overtaken, NotOurs.
    """
    with hold(f"reindex:{user_hash[:16]}", seconds=LEASE_SECONDS) as lease:
        renamed = change_names(user_hash, configured().names, progress=progress)
        done = Reindexed(renamed.rows, renamed.unreadable)
        for wanted in _stages(user_hash, configured()):
            run = TenantReindex(user_hash, wanted, lease, force=force, embed=not keep_embeddings, progress=progress)
            run.run()
            unreadable = max(done.unreadable, len(run.unreadable))
            done = Reindexed(done.rows + run.done, unreadable, done.moved + run.moved)
    return replace(done, moved=done.moved + index_tail(user_hash=user_hash, limit=2**62))


def rebuild_graph() -> None:
    """REINDEX the vector graph while it is in use, as the owner. Raises ImproperlyConfigured without the owner."""
    connection = connect_as("owner")
    connection.autocommit = True
    with connection:
        connection.execute(f"REINDEX INDEX CONCURRENTLY {GRAPH_INDEX}")


def _stages(user_hash: str, wanted: Recipe) -> Iterator[Recipe]:
    """The recipes to bring a tenant to, one after the other.

    Where vectors and keywords both change, the vectors come first: all at once, nothing would compare meanwhile.
    """
    with tenant_transaction_by_hash(user_hash) as tenant, binary_cursor() as cursor:
        row = tenant_row.lock(cursor, tenant)
    if row is None:
        return
    kinds = recorded(row.recipe).kinds or (recorded(row.recipe),)
    other_vectors = any((kind.model, kind.rotation) != (wanted.model, wanted.rotation) for kind in kinds)
    terms = {(kind.language, kind.analysis) for kind in kinds}
    if other_vectors and len(terms) == 1 and terms != {(wanted.language, wanted.analysis)}:
        yield replace(wanted, language=kinds[0].language, analysis=kinds[0].analysis)
    yield wanted


def outgrown(tenant: Indexed) -> bool:
    """Whether the tenant is answered from the indexes, and may have a tail to move."""
    return has_outgrown(tenant.chunk_count)
