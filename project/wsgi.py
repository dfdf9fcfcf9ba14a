"""The WSGI entry point. Refuses to serve with settings that `manage.py check` refuses, from a database that does not
protect tenants, or without a key that rows need."""

import os

from django.core.wsgi import get_wsgi_application

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "project.settings")

application = get_wsgi_application()

from project.startup import begin_serving  # noqa: E402  (needs the apps that the line above loads)

begin_serving("wsgi")
