"""How often one identity may call, and how often one service for all of its users together."""

from django.conf import settings
from rest_framework.request import Request
from rest_framework.throttling import BaseThrottle
from rest_framework.views import APIView

from memory import metrics
from memory.access import rates
from memory.access.identity import Caller, Identity
from memory.access.rates import Budget
from memory.security import hmac_user


class IdentityThrottle(BaseThrottle):
    """Refuses an identity's calls beyond MEMORY_THROTTLE_<the view's throttle_scope>; an empty rate refuses none.

    A token's calls are counted under MEMORY_THROTTLE_TOKEN as well, or a service would go round any limit by naming
    another user each time; those of a service with a rate of its own under that, all of its tokens together. Every
    answer says what is left of each budget.
    """

    _wait = 0.0

    def allow_request(self, request: Request, view: APIView) -> bool:
        identity = getattr(request._request, "memory_identity", None)
        if not isinstance(identity, Identity | Caller):
            return True
        # A change may have to embed, as storing does.
        scope = "index" if request.method in ("PATCH", "PUT") else getattr(view, "throttle_scope", "other")
        standings = rates.count_call(_budgets(identity, scope))
        view.headers.update(rates.headers(standings))
        self._wait = rates.seconds_to_wait(standings)
        if self._wait:
            metrics.THROTTLED.labels(scope).inc()
        return not self._wait

    def wait(self) -> float:
        """Seconds until the window ends."""
        return self._wait


def _budgets(identity: Identity | Caller, scope: str) -> list[Budget]:
    """The user's, where the user is known, and the token's or its service's."""
    budgets = []
    if isinstance(identity, Identity):
        rate = getattr(settings, f"MEMORY_THROTTLE_{scope.upper()}")
        budgets.append(Budget(scope, rate, f"{scope}:{hmac_user(identity.user_id)}"))
    if identity.token is not None:
        service = getattr(identity.account, "service_account", None)
        if service is not None and service.rate:
            budgets.append(Budget("service", service.rate, f"service:{service.pk}"))
        else:
            budgets.append(Budget("token", settings.MEMORY_THROTTLE_TOKEN, f"token:{identity.token.pk}"))
    return budgets
