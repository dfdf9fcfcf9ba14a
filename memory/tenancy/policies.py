"""Migration operations for tenant tables: row-level security, and the physical layout that retrieval counts on.

Every statement is described, reversible and run as the owner. Table and column names come from the models.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from django.db.backends.base.schema import BaseDatabaseSchemaEditor
from django.db.migrations.operations.base import Operation, OperationCategory

APPLICATION_ROLE = "memory_app"
CENSUS_ROLE = "memory_census"
POLICY = "tenant_isolation"
CENSUS_POLICY = "census"
# Bare, without a sub-select: Citus refuses those in policies. nullif: an ended SET LOCAL leaves '', not NULL.
OWN_ROWS = "user_hash = nullif(current_setting('app.user_hash', true), '')"


class TableOperation(Operation):
    """A statement list about one model's table, forwards and backwards; the state does not change."""

    reduces_to_sql = True
    reversible = True
    category = OperationCategory.SQL

    def __init__(self, model_name: str) -> None:
        self.model_name = model_name

    def forwards(self, table: str) -> Sequence[str]:
        raise NotImplementedError

    def backwards(self, table: str) -> Sequence[str]:
        raise NotImplementedError

    def state_forwards(self, app_label: str, state: Any) -> None:
        pass

    def database_forwards(
        self, app_label: str, schema_editor: BaseDatabaseSchemaEditor, from_state: Any, to_state: Any
    ) -> None:
        self._run(app_label, schema_editor, to_state, self.forwards)

    def database_backwards(
        self, app_label: str, schema_editor: BaseDatabaseSchemaEditor, from_state: Any, to_state: Any
    ) -> None:
        self._run(app_label, schema_editor, to_state, self.backwards)

    def _run(self, app_label: str, schema_editor: BaseDatabaseSchemaEditor, state: Any, statements: Any) -> None:
        model = state.apps.get_model(app_label, self.model_name)
        if self.allow_migrate_model(schema_editor.connection.alias, model):
            for statement in statements(schema_editor.quote_name(model._meta.db_table)):
                schema_editor.execute(statement)


class EnableTenantRLS(TableOperation):
    """Enable and force row-level security with the tenant policy, and let the census read the named columns alone."""

    def __init__(self, model_name: str, census_columns: Sequence[str]) -> None:
        super().__init__(model_name)
        self.census_columns = tuple(census_columns)

    def forwards(self, table: str) -> Sequence[str]:
        columns = ", ".join(self.census_columns)
        return [
            f"ALTER TABLE {table} ENABLE ROW LEVEL SECURITY",
            f"ALTER TABLE {table} FORCE ROW LEVEL SECURITY",
            f"CREATE POLICY {POLICY} ON {table} TO {APPLICATION_ROLE} USING ({OWN_ROWS}) WITH CHECK ({OWN_ROWS})",
            # Policies OR together, so this one names its role; the application is never a member of it.
            f"CREATE POLICY {CENSUS_POLICY} ON {table} FOR SELECT TO {CENSUS_ROLE} USING (true)",
            f"REVOKE ALL ON {table} FROM {APPLICATION_ROLE}, {CENSUS_ROLE}",
            f"GRANT SELECT, INSERT, UPDATE, DELETE ON {table} TO {APPLICATION_ROLE}",
            f"GRANT SELECT ({columns}) ON {table} TO {CENSUS_ROLE}",
        ]

    def backwards(self, table: str) -> Sequence[str]:
        return [
            f"REVOKE ALL ON {table} FROM {CENSUS_ROLE}",
            f"DROP POLICY {CENSUS_POLICY} ON {table}",
            f"DROP POLICY {POLICY} ON {table}",
            f"ALTER TABLE {table} NO FORCE ROW LEVEL SECURITY",
            f"ALTER TABLE {table} DISABLE ROW LEVEL SECURITY",
        ]

    def describe(self) -> str:
        return f"Isolate the tenants of {self.model_name} by row-level security"


class SetStorage(TableOperation):
    """Set the storage of columns: EXTERNAL for seals (they do not compress), PLAIN for vectors (never in TOAST)."""

    def __init__(self, model_name: str, storage: Mapping[str, str], default: str = "EXTENDED") -> None:
        super().__init__(model_name)
        self.storage = dict(storage)
        self.default = default

    def forwards(self, table: str) -> Sequence[str]:
        return [f"ALTER TABLE {table} ALTER COLUMN {name} SET STORAGE {kind}" for name, kind in self.storage.items()]

    def backwards(self, table: str) -> Sequence[str]:
        return [f"ALTER TABLE {table} ALTER COLUMN {name} SET STORAGE {self.default}" for name in self.storage]

    def describe(self) -> str:
        return f"Set the column storage of {self.model_name}"


class GrantCensus(TableOperation):
    """Let the census read further columns of a tenant table."""

    def __init__(self, model_name: str, columns: Sequence[str]) -> None:
        super().__init__(model_name)
        self.columns = tuple(columns)

    def forwards(self, table: str) -> Sequence[str]:
        return [f"GRANT SELECT ({', '.join(self.columns)}) ON {table} TO {CENSUS_ROLE}"]

    def backwards(self, table: str) -> Sequence[str]:
        return [f"REVOKE SELECT ({', '.join(self.columns)}) ON {table} FROM {CENSUS_ROLE}"]  # noqa: S608

    def describe(self) -> str:
        return f"Let the census read {', '.join(self.columns)} of {self.model_name}"


class DropPrimaryKey(TableOperation):
    """Drop the primary key's index where nothing looks rows up by it and the rows are many and narrow."""

    def __init__(self, model_name: str, key: Sequence[str]) -> None:
        super().__init__(model_name)
        self.key = tuple(key)

    def forwards(self, table: str) -> Sequence[str]:
        return [f"ALTER TABLE {table} DROP CONSTRAINT {_key_name(table)}"]

    def backwards(self, table: str) -> Sequence[str]:
        return [f"ALTER TABLE {table} ADD CONSTRAINT {_key_name(table)} PRIMARY KEY ({', '.join(self.key)})"]

    def describe(self) -> str:
        return f"Drop the primary key's index of {self.model_name}"


def _key_name(table: str) -> str:
    return f"{table.strip(chr(34))}_pkey"


class ReferenceChunk(TableOperation):
    """A foreign key (user_hash, id) to memory_chunks, deleted with it. Django has no composite foreign keys."""

    def __init__(self, model_name: str, name: str) -> None:
        super().__init__(model_name)
        self.name = name

    def forwards(self, table: str) -> Sequence[str]:
        return [
            f"ALTER TABLE {table} ADD CONSTRAINT {self.name} FOREIGN KEY (user_hash, id) "
            "REFERENCES memory_chunks (user_hash, id) ON DELETE CASCADE"
        ]

    def backwards(self, table: str) -> Sequence[str]:
        return [f"ALTER TABLE {table} DROP CONSTRAINT {self.name}"]

    def describe(self) -> str:
        return f"Tie every row of {self.model_name} to its chunk"
