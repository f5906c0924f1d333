"""Which addresses may be asked for a file."""

import asyncio

import pytest

from embed.errors import DataError
from embed.sources import addresses

PRIVATE = ["127.0.0.1", "10.0.0.1", "169.254.169.254", "::1", "::ffff:10.0.0.1", "100.64.0.1", "0.0.0.0"]


@pytest.mark.parametrize("address", PRIVATE)
def test_private_addresses_are_refused(address):
    with pytest.raises(DataError, match="private address"):
        asyncio.run(addresses.resolve(address, 80, False))
    assert asyncio.run(addresses.resolve(address, 80, True))


def test_a_host_and_its_port_are_read():
    assert addresses.host_of("https://example.org/a.png?x=1") == ("https", "example.org", 443)
    assert addresses.host_of("http://[::1]:8080/") == ("http", "::1", 8080)
