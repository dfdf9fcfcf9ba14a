"""The filter that hides secret settings in Django's debug pages and error reports."""

import re

from django.views.debug import SafeExceptionReporterFilter


class ReporterFilter(SafeExceptionReporterFilter):
    """Hides URLs too: one of Redis, of Postgres or of a remote reranker may carry a password."""

    hidden_settings = re.compile(
        rf"{SafeExceptionReporterFilter.hidden_settings.pattern}|URL|LOCATION|DSN|ROLES", re.IGNORECASE
    )
