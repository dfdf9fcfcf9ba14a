"""How often one identity may call, and how often one service for all of its users together."""

from django.conf import settings
from rest_framework.request import Request
from rest_framework.throttling import BaseThrottle
from rest_framework.views import APIView

from memory import metrics
from memory.access import rates
from memory.access.identity import Identity
from memory.security import hmac_user


class IdentityThrottle(BaseThrottle):
    """Refuses an identity's calls beyond MEMORY_THROTTLE_<the view's throttle_scope>; an empty rate refuses none.

    A token's calls are counted under MEMORY_THROTTLE_TOKEN as well, or a service would go round any limit by naming
    another user each time.
    """

    _wait = 0.0

    def allow_request(self, request: Request, view: APIView) -> bool:
        identity = getattr(request._request, "memory_identity", None)
        if not isinstance(identity, Identity):
            return True
        # A change may have to embed, as storing does.
        scope = "index" if request.method == "PATCH" else getattr(view, "throttle_scope", "other")
        rate = getattr(settings, f"MEMORY_THROTTLE_{scope.upper()}")
        self._wait = rates.seconds_to_wait(rate, f"{scope}:{hmac_user(identity.user_id)}")
        if identity.token is not None:
            of_token = rates.seconds_to_wait(settings.MEMORY_THROTTLE_TOKEN, f"token:{identity.token.pk}")
            self._wait = max(self._wait, of_token)
        if self._wait:
            metrics.THROTTLED.labels(scope).inc()
        return not self._wait

    def wait(self) -> float:
        """Seconds until the window ends."""
        return self._wait
