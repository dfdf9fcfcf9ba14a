"""Test databases: made, granted and dropped by the owner, used by the application's role."""

from contextlib import AbstractContextManager
from typing import Any

from django.db.backends.postgresql import creation

from . import setup_sql


class DatabaseCreation(creation.DatabaseCreation):
    """Django's creation of test databases, run as the owner. Only in a throw-away cluster has the owner CREATEDB."""

    # A database.base.DatabaseWrapper, which imports this module.
    connection: Any

    def _nodb_cursor(self) -> AbstractContextManager[Any]:
        return self.connection.as_owner()._nodb_cursor()

    def _execute_create_test_db(self, cursor: Any, parameters: dict[str, str], keepdb: bool = False) -> None:
        super()._execute_create_test_db(cursor, parameters, keepdb)  # type: ignore[misc]
        for statement in setup_sql.database_privileges(parameters["dbname"]):
            cursor.execute(statement)
