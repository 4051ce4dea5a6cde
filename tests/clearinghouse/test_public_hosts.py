"""Which URLs and addresses of strangers are connected to."""

from __future__ import annotations

from ipaddress import ip_address

import pytest

from clearinghouse.public_hosts import Endpoint, HostRefused, IPAddress, https_endpoint, may_be_reached, resolve

NEVER = [
    "0.0.0.0", "0.1.2.3", "169.254.169.254", "192.0.0.1", "192.0.2.1", "192.88.99.1", "198.18.0.1", "198.51.100.1",
    "203.0.113.1", "224.0.0.1", "239.255.255.250", "240.0.0.1", "255.255.255.255",
    "::", "::127.0.0.1", "::ffff:169.254.169.254", "::ffff:0.0.0.0", "64:ff9b::7f00:1", "64:ff9b::a00:1",
    "64:ff9b:1::1", "100::1", "2001::1", "2001:db8::1", "2002:7f00:1::1", "3fff::1", "5f00::1", "fd00:ec2::254",
    "fe80::1", "fe80::1%eth0", "2600::1%eth0", "fec0::1", "ff02::1", "ff0e::1",
]  # fmt: skip
PRIVATE = [
    "127.0.0.1", "127.255.255.254", "10.0.0.1", "172.16.0.1", "172.31.255.255", "192.168.1.1", "100.64.0.1", "::1",
    "fc00::1", "fd00::1", "::ffff:127.0.0.1", "::ffff:10.0.0.1",
]  # fmt: skip
PUBLIC = ["8.8.8.8", "1.1.1.1", "192.0.1.1", "223.255.255.254", "::ffff:8.8.8.8", "2606:4700:4700::1111", "2a00::1"]


@pytest.mark.parametrize("address", NEVER)
def test_an_address_that_the_internet_does_not_route_is_never_reached(address: str) -> None:
    assert not may_be_reached(ip_address(address), private_allowed=False)
    assert not may_be_reached(ip_address(address), private_allowed=True)


@pytest.mark.parametrize("address", PRIVATE)
def test_a_private_address_is_reached_only_where_that_is_allowed(address: str) -> None:
    assert not may_be_reached(ip_address(address), private_allowed=False)
    assert may_be_reached(ip_address(address), private_allowed=True)


@pytest.mark.parametrize("address", PUBLIC)
def test_a_public_address_is_reached(address: str) -> None:
    assert may_be_reached(ip_address(address), private_allowed=False)
    assert may_be_reached(ip_address(address), private_allowed=True)


@pytest.mark.parametrize(
    ("url", "endpoint"),
    [
        ("https://orchestrator.example:8935", Endpoint("orchestrator.example", 8935)),
        ("https://orchestrator.example", Endpoint("orchestrator.example", 443)),
        ("https://8.8.8.8:1/path?query#part", Endpoint("8.8.8.8", 1)),
        ("https://[2600::1]:8935", Endpoint("2600::1", 8935)),
        ("HTTPS://Host_1.example", Endpoint("host_1.example", 443)),
    ],
)
def test_an_https_url_says_where_it_leads(url: str, endpoint: Endpoint) -> None:
    assert https_endpoint(url) == endpoint


@pytest.mark.parametrize(
    "url",
    [
        "", "orchestrator.example:8935", "http://orchestrator.example", "ftp://orchestrator.example", "https://",
        "https://user@orchestrator.example", "https://user:password@orchestrator.example", "https://host:0",
        "https://host:65536", "https://host:port", "https://[::1", "https://.example", "https://a..b", "https://host.",
        "https://ho st", "https://hôte.example", "https://host\n.example", "https://" + "a" * 64, "file:///etc/passwd",
        "https://a.b\\@127.0.0.1", "https://" + "a." * 127 + "a", "https://host%00.example",
    ],
)  # fmt: skip
def test_any_other_url_is_refused(url: str) -> None:
    with pytest.raises(HostRefused):
        https_endpoint(url)


async def test_one_private_address_among_public_ones_refuses_the_host() -> None:
    async def both(host: str) -> list[IPAddress]:
        return [ip_address("8.8.8.8"), ip_address("127.0.0.1")]

    with pytest.raises(HostRefused, match=r"127\.0\.0\.1"):
        await resolve("rebound.example", both, private_allowed=False)


async def test_an_address_is_not_looked_up_and_a_name_without_one_is_not_reached() -> None:
    async def none(host: str) -> list[IPAddress]:
        return []

    assert await resolve("8.8.8.8", none, private_allowed=False) == [ip_address("8.8.8.8")]
    with pytest.raises(OSError, match="no address"):
        await resolve("orchestrator.example", none, private_allowed=False)
