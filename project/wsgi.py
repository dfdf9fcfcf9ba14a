"""The WSGI entry point. Refuses to serve from a database that does not protect tenants, or without a key
that rows need."""

import os

from django.core.wsgi import get_wsgi_application

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "project.settings")

application = get_wsgi_application()

from keys import heartbeat  # noqa: E402  (needs the apps that the line above loads)
from keys.live_keys import assert_live_keys  # noqa: E402
from memory.index.stale_settings import warn_of_stale_indexes  # noqa: E402
from memory.tenancy.live_database import assert_live_database  # noqa: E402
from rerank.startup import begin_serving  # noqa: E402

assert_live_database()
assert_live_keys()
warn_of_stale_indexes()
heartbeat.start("wsgi")
begin_serving()
