"""The ASGI entry point. Refuses to serve from a database that does not protect tenants."""

import os

from django.core.asgi import get_asgi_application

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "project.settings")

application = get_asgi_application()

from keys import heartbeat  # noqa: E402  (needs the apps that the line above loads)
from memory.live_database import assert_live_database  # noqa: E402
from rerank.startup import begin_serving  # noqa: E402

assert_live_database()
heartbeat.start("asgi")
begin_serving()
