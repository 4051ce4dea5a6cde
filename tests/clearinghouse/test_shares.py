"""Places that strangers share: nobody keeps everybody else out."""

from __future__ import annotations

import random

import pytest

from clearinghouse.shares import NoPlace, Place, Shares, holder_of


def take_all(shares: Shares, holder: str) -> list[Place]:
    places = []
    while isinstance(place := shares.take(holder), Place):
        places.append(place)
    return places


@pytest.mark.parametrize("attackers_count", [1, 2, 3, 7, 31])
def test_attackers_who_take_all_they_can_leave_one_part_in_their_number_and_one(attackers_count: int) -> None:
    shares = Shares(1024)
    for _ in range(1024):  # in turns, which is the best they can do
        for attacker in range(attackers_count):
            shares.take(f"198.51.100.{attacker}")
    assert shares.places_max_count - shares.taken_count == pytest.approx(1024 / (attackers_count + 1), abs=1)
    assert isinstance(shares.take("192.0.2.1"), Place)
    assert shares.take("198.51.100.0") is NoPlace.OWN_SHARE_TAKEN


def test_who_is_alone_has_half_and_gets_it_back() -> None:
    shares = Shares(10)
    for _ in range(3):
        places = take_all(shares, "192.0.2.1")
        assert len(places) == shares.taken_count == 5
        for place in places:
            place.give_back()
            place.give_back()  # a connection that fails in two ways at once
        assert shares.taken_count == 0
        assert shares._held == {}


def test_when_all_is_taken_nobody_gets_a_place() -> None:
    shares = Shares(4)
    assert [type(shares.take(holder)) for holder in "abcde"] == [Place] * 4 + [NoPlace]
    assert shares.take("f") is NoPlace.ALL_TAKEN


def test_random_comings_and_goings_never_exceed_the_places_or_a_share() -> None:
    choice = random.Random(5)
    shares, held = Shares(40), [[] for _ in range(6)]  # type: tuple[Shares, list[list[Place]]]
    for _ in range(5000):
        who = choice.randrange(6)
        if held[who] and choice.random() < 0.45:
            held[who].pop().give_back()
        else:
            free, has = 40 - sum(map(len, held)), len(held[who])
            place = shares.take(str(who))
            assert isinstance(place, Place) == (has < free)
            if isinstance(place, Place):
                held[who].append(place)
        assert shares.taken_count == sum(map(len, held)) <= 40


def test_an_ipv6_network_is_one_holder_and_a_mapped_address_is_the_one_it_maps() -> None:
    assert holder_of("2001:db8:1:2::1") == holder_of("2001:db8:1:2:ffff::9") != holder_of("2001:db8:1:3::1")
    assert holder_of("::ffff:192.0.2.1") == holder_of("192.0.2.1") == "192.0.2.1"
    assert holder_of("fe80::1%eth0") == holder_of("fe80::2%eth0")
    assert holder_of("unix:/run/x") == "unix:/run/x"
