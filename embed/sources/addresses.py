"""Which addresses may be asked for a file: those of the public internet, unless a user allows others."""

import asyncio
import ipaddress
import socket
from urllib.parse import urlsplit

from embed.errors import DataError

_PORTS = {"http": 80, "https": 443}


def host_of(url: str) -> tuple[str, str, int]:
    """Returns (scheme, host, port) of a URL; what is no http or https URL, or has a user or a password, is a DataError."""
    try:
        parts = urlsplit(url)
        host, port = parts.hostname, parts.port
    except ValueError as e:  # half an IPv6 address, or a port that is no number
        raise DataError(f"no URL ({e})") from e
    if parts.scheme not in _PORTS or not host:
        raise DataError("no http or https URL")
    if parts.username is not None or parts.password is not None:
        raise DataError("a URL with a user or a password")
    if not url.isprintable() or " " in url:
        raise DataError("a URL with spaces or control characters")
    return parts.scheme, host, port or _PORTS[parts.scheme]


async def resolve(host: str, port: int, allow_private: bool) -> str:
    """Returns an IP address of a host. The caller must connect to this address: a second lookup could give another, unchecked one.

    Raises DataError if any address of the host is not public, unless `allow_private`; OSError if the host does not resolve.
    """
    loop = asyncio.get_running_loop()
    answers = await loop.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    addresses = [str(entry[4][0]) for entry in answers]
    if not allow_private:
        for address in addresses:
            if not _is_public(address):
                raise DataError(
                    f"{host} resolves to the private address {address}, and Fetching.allow_private is False"
                )
    return addresses[0]


def _is_public(address: str) -> bool:
    ip = ipaddress.ip_address(address.partition("%")[0])
    inner = getattr(ip, "ipv4_mapped", None) or getattr(ip, "sixtofour", None)
    return ip.is_global and not ip.is_multicast and (inner is None or inner.is_global)
