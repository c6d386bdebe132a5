"""Names by which a page may be asked for: a loopback address takes no others.

A web page of a stranger can have its own name point to 127.0.0.1 (DNS rebinding) and
then read from the visitor's browser what listens there; the header Host tells.
"""

from __future__ import annotations

import ipaddress

_LOOPBACK = ("127.0.0.1", "localhost", "[::1]", "::1")


def checked(host: str):
    """The middleware that refuses other names than those of the address `host`.

    In a network a machine has names that are not known here: any will do.
    """
    from starlette.middleware import Middleware
    from starlette.middleware.trustedhost import TrustedHostMiddleware

    allowed = [*_LOOPBACK, host] if _is_loopback(host) else ["*"]
    return Middleware(TrustedHostMiddleware, allowed_hosts=allowed, www_redirect=False)


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
