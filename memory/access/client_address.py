"""The IP address a request came from, as far as the configured proxies vouch for it."""

from ipaddress import ip_address

from django.conf import settings
from django.http import HttpRequest


def client_address(request: HttpRequest) -> str | None:
    """The caller's IP address: the peer's, or what the outermost of TRUSTED_PROXY_COUNT proxies saw.

    Every proxy appends the address it received the request from. So with n proxies the n-th entry from the right is the
    caller's, and entries left of it may be forged. None when the peer has no address (a Unix socket).
    """
    count = settings.TRUSTED_PROXY_COUNT
    forwarded = [part.strip() for part in request.META.get("HTTP_X_FORWARDED_FOR", "").split(",")]
    if count and len(forwarded) >= count and (address := _parsed(forwarded[-count])):
        return address
    return _parsed(request.META.get("REMOTE_ADDR", ""))


def _parsed(text: str) -> str | None:
    try:
        return str(ip_address(text))
    except ValueError:
        return None
