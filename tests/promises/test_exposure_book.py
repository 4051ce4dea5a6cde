"""Promise 8: the book of released tickets equals the one recomputed from the issuances, to the digit, at any moment."""

from __future__ import annotations

import os
import random
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from decimal import Decimal
from functools import partial
from typing import Any
from uuid import UUID, uuid4

import psycopg
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from chain.tickets import WIN_PROB_CERTAIN
from tests.parts.books import Connection, Usage, commit_together, new_gateway, usage
from tests.parts.redeemed import Blocks, redemption

FACE_VALUES_WEI = (10**15, 3 * 10**15)
BOOK = """SELECT gateway_id, face_value_wei, sum(num_tickets)::bigint, sum(ev_numerator) FROM exposure_book
           WHERE sender = %s GROUP BY 1, 2"""
DIFFERENCE = "SELECT * FROM exposure_difference()"
OVERVIEW = """SELECT (SELECT count(*) FROM exposure_delta),
                     (SELECT count(*) FROM exposure_counter WHERE num_tickets <> 0 OR ev_numerator <> 0)"""

#: What happens next, and numbers to choose with.
ACTIONS = ("pay", "pay", "pay", "webhook", "replay", "poor", "redeem", "redeem", "forge", "match", "match", "reorg",
           "begin", "roll_up", "roll_up", "crash", "at_once", "mend")  # fmt: skip
Step = tuple[str, int]
HISTORIES = st.lists(st.tuples(st.sampled_from(ACTIONS), st.integers(0, 2**32)), min_size=1, max_size=25)


@dataclass
class History:
    """The books, and beside them a plain list of what was released and what became of it."""

    owner: Connection
    sender: bytes = field(default_factory=lambda: os.urandom(20))
    released: list[Usage] = field(default_factory=list)
    #: (block, rand, nonce, face value) of each redemption, and whether it is matched; None: not yet compared.
    redeemed: list[tuple[int, bytes, int, int]] = field(default_factory=list)
    verdicts: list[bool | None] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.blocks = Blocks(self.owner)
        self.gateways = [new_gateway(self.owner) for _ in range(3)]
        self.poor = new_gateway(self.owner, credit=0)

    def take(self, action: str, number: int) -> None:
        getattr(self, f"_{action}")(random.Random(number))

    # --- payments -----------------------------------------------------------------------------------------------------

    def call(self, dice: random.Random, **further: Any) -> Usage:
        count = dice.randint(1, 4)
        gateway, key = dice.choice(self.gateways)
        return usage(
            gateway, key, ev_wei=count * dice.choice(FACE_VALUES_WEI), num_tickets=count, sender=self.sender, **further
        )

    def commit(self, connection: Connection, *calls: Usage) -> None:
        for call, (code, _) in zip(calls, commit_together(connection, calls), strict=True):
            assert code is None, code
            self.released.append(call)

    def _pay(self, dice: random.Random) -> None:
        calls = [self.call(dice) for _ in range(dice.randint(1, 3))]
        newest = {call.session_id: call for call in self.released if call.approved is None}
        if newest and dice.random() < 0.5:
            calls.append(dice.choice(list(newest.values())).continued(num_tickets=dice.randint(1, 3)))
        self.commit(self.owner, *calls)

    def _webhook(self, dice: random.Random) -> None:
        self.commit(self.owner, self.call(dice, approved=b"states"))

    def _replay(self, dice: random.Random) -> None:
        newest = {call.session_id: call for call in self.released}
        if newest:
            again = dice.choice(list(newest.values()))
            other = replace(again, issuance_id=uuid4()) if dice.random() < 0.5 else again
            assert [code for code, _ in commit_together(self.owner, [other])] == ["replayed"]

    def _poor(self, dice: random.Random) -> None:
        """A batch in which one item is refused."""
        gateway, key = self.poor
        good, bad = self.call(dice), usage(gateway, key, sender=self.sender)
        assert [code for code, _ in commit_together(self.owner, [bad, good])] == ["out_of_credit", None]
        self.released.append(good)

    def _at_once(self, dice: random.Random) -> None:
        """Two batches of different gateways and two roll-ups, on four connections."""
        with ExitStack() as stack:
            doors = [stack.enter_context(psycopg.connect(self.owner.info.dsn, autocommit=True)) for _ in range(4)]
            pool = stack.enter_context(ThreadPoolExecutor(4))
            work: list[Callable[[], Any]] = [partial(door.execute, "SELECT roll_up_exposure(3)") for door in doors[2:]]
            for (gateway, key), door in zip(self.gateways, doors[:2], strict=False):
                calls = [replace(self.call(dice), gateway_id=gateway, key_id=key) for _ in range(3)]
                work.append(partial(self.commit, door, *calls))
            for done in [pool.submit(each) for each in work]:
                done.result()

    # --- redemptions --------------------------------------------------------------------------------------------------

    def _redeem(self, dice: random.Random, altered_wei: int = 0) -> None:
        if not self.released:
            return
        call = dice.choice(self.released)
        nonce = call.first_nonce + dice.randrange(call.num_tickets)
        face_value_wei = call.ev_wei // call.num_tickets + altered_wei
        ticket = redemption(
            sender=self.sender, recipient=call.recipient, rand=call.rand, nonce=nonce, face_value_wei=face_value_wei
        )
        self.blocks.add(ticket)
        self.redeemed.append((self.blocks.number, call.rand, nonce, face_value_wei))
        self.verdicts.append(None)

    def _forge(self, dice: random.Random) -> None:
        """Another ticket with a nonce of ours: of what the webhook approved nobody can tell which is the right one."""
        self._redeem(dice, altered_wei=1)

    def _match(self, dice: random.Random) -> None:
        del dice
        self.blocks.match()
        for index, (_, rand, nonce, face_value_wei) in enumerate(self.redeemed):
            if self.verdicts[index] is None:
                self.verdicts[index] = self._is_ours(rand, nonce, face_value_wei)

    def _is_ours(self, rand: bytes, nonce: int, face_value_wei: int) -> bool:
        is_first = all(
            (rand, nonce) != (other[1], other[2]) or not verdict
            for other, verdict in zip(self.redeemed, self.verdicts, strict=True)
        )
        return is_first and any(
            call.rand == rand
            and call.first_nonce <= nonce < call.first_nonce + call.num_tickets
            and (call.approved is not None or call.ev_wei // call.num_tickets == face_value_wei)
            for call in self.released
        )

    def _reorg(self, dice: random.Random) -> None:
        self._back_to(dice, self.blocks.undo)

    def _begin(self, dice: random.Random) -> None:
        self._back_to(dice, self.blocks.begin)

    def _back_to(self, dice: random.Random, go: Callable[[int], None]) -> None:
        number = dice.choice(self.blocks.known)[0]
        go(number)
        kept = [index for index, each in enumerate(self.redeemed) if each[0] <= number]
        self.redeemed = [self.redeemed[index] for index in kept]
        self.verdicts = [self.verdicts[index] for index in kept]

    # --- the book -----------------------------------------------------------------------------------------------------

    def _roll_up(self, dice: random.Random) -> None:
        self.owner.execute("SELECT roll_up_exposure(%s)", [dice.choice((1, 2, 5, 1000))])

    def _crash(self, dice: random.Random) -> None:
        """The connection dies when the roll-up is done and not yet committed."""
        with psycopg.connect(self.owner.info.dsn) as dying:
            dying.execute("SELECT roll_up_exposure(%s)", [dice.choice((1, 1000))])
            with pytest.raises(psycopg.OperationalError):
                dying.execute("SELECT pg_terminate_backend(pg_backend_pid())")
            dying.close()

    def _mend(self, dice: random.Random) -> None:
        del dice
        assert self.owner.execute("SELECT mend_exposure()").fetchone() == (0,)

    def require_right_book(self) -> None:
        assert self.owner.execute(DIFFERENCE).fetchall() == []
        tickets: Counter[tuple[UUID, int | None]] = Counter()
        numerators: Counter[tuple[UUID, int | None]] = Counter()
        for call in self.released:
            kind = _kind(call)
            tickets[kind] += call.num_tickets
            numerators[kind] += call.ev_wei * WIN_PROB_CERTAIN
        for (_, rand, _, face_value_wei), verdict in zip(self.redeemed, self.verdicts, strict=True):
            if verdict:
                kind = next(_kind(call) for call in self.released if call.rand == rand)
                tickets[kind] -= 1
                numerators[kind] -= face_value_wei * WIN_PROB_CERTAIN
        rows = self.owner.execute(BOOK, [self.sender]).fetchall()
        found = {(gateway, None if face is None else int(face)): (count, int(ev)) for gateway, face, count, ev in rows}
        expected = {kind: (count, numerators[kind]) for kind, count in tickets.items() if count or numerators[kind]}
        assert found == expected


def _kind(call: Usage) -> tuple[UUID, int | None]:
    return call.gateway_id, None if call.approved is not None else call.ev_wei // call.num_tickets


@example([("pay", 1), ("redeem", 1), ("match", 1), ("begin", 1), ("redeem", 1), ("match", 1)])
@example([("webhook", 1), ("forge", 1), ("redeem", 1), ("match", 1), ("reorg", 1), ("match", 1)])
@settings(max_examples=30, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(history=HISTORIES)
def test_the_book_equals_the_plain_list_and_the_issuances_after_every_step(database: str, history: list[Step]) -> None:
    with psycopg.connect(database, autocommit=True) as owner:
        books = History(owner)
        for action, number in history:
            books.take(action, number)
            books.require_right_book()
        while owner.execute("SELECT roll_up_exposure(1000)").fetchone() != (0,):
            pass
        books.require_right_book()
        ((deltas, _),) = owner.execute(OVERVIEW)
        assert deltas == 0


def test_payments_wait_for_no_roll_up_and_roll_ups_for_no_payment(database: str) -> None:
    """Each is left open in its transaction while the other goes through."""
    with (
        psycopg.connect(database, autocommit=True) as owner,
        psycopg.connect(database) as paying,
        psycopg.connect(database) as rolling,
    ):
        gateway, other = new_gateway(owner), new_gateway(owner)
        for connection in (paying, rolling):
            connection.execute("SET lock_timeout = '100ms'")
            connection.commit()
        assert commit_together(owner, [usage(*gateway)])[0][0] is None
        assert rolling.execute("SELECT roll_up_exposure(10)").fetchone() == (1,)
        assert commit_together(paying, [usage(*gateway)])[0][0] is None
        paying.commit()
        rolling.commit()
        assert commit_together(paying, [usage(*gateway)])[0][0] is None
        assert rolling.execute("SELECT roll_up_exposure(10)").fetchone() == (1,), "what is not committed is not seen"
        assert commit_together(owner, [usage(*other)])[0][0] is None
        assert owner.execute("SELECT roll_up_exposure(10)").fetchone() == (0,), "one rolls up"
        rolling.commit()
        paying.commit()
        assert owner.execute(DIFFERENCE).fetchall() == []
        assert owner.execute("SELECT sum(num_tickets) FROM exposure_book").fetchone() == (4,)


def test_four_payers_and_three_roll_ups_leave_a_book_that_is_right(database: str) -> None:
    with psycopg.connect(database, autocommit=True) as owner, ThreadPoolExecutor(8) as pool:
        gateways = [new_gateway(owner) for _ in range(4)]

        def pay(gateway: tuple[UUID, UUID]) -> int:
            with psycopg.connect(database, autocommit=True) as connection:
                for _ in range(25):
                    assert {code for code, _ in commit_together(connection, [usage(*gateway) for _ in range(4)])} == {
                        None
                    }
            return 100

        def roll_up(rows_max: int) -> int:
            with psycopg.connect(database, autocommit=True) as connection:
                query = "SELECT roll_up_exposure(%s)"
                return sum(connection.execute(query, [rows_max]).fetchone()[0] for _ in range(60))  # type: ignore[index]

        rolled = [pool.submit(roll_up, rows_max) for rows_max in (1, 7, 1000)]
        paid = sum(pool.map(pay, gateways))
        assert sum(done.result() for done in rolled) <= paid
        assert owner.execute(DIFFERENCE).fetchall() == []
        assert owner.execute("SELECT sum(num_tickets) FROM exposure_book").fetchone() == (paid,)


def test_two_who_compare_the_same_redemption_at_once_take_it_out_once(database: str) -> None:
    with psycopg.connect(database, autocommit=True) as owner, psycopg.connect(database) as slow:
        books = History(owner)
        books.take("pay", 1)
        books.take("redeem", 1)
        slow.execute("SELECT * FROM match_winning_tickets(100)")
        with ThreadPoolExecutor(1) as pool:
            second = pool.submit(books.take, "match", 1)
            with pytest.raises(TimeoutError):
                second.result(timeout=0.3)
            slow.commit()
            second.result(timeout=10)
        books.require_right_book()


def test_a_reorganisation_beside_a_comparison_that_is_under_way_puts_back_what_that_took_out(database: str) -> None:
    with psycopg.connect(database, autocommit=True) as owner, psycopg.connect(database) as slow:
        books = History(owner)
        books.take("pay", 1)
        books.take("redeem", 1)
        slow.execute("SELECT * FROM match_winning_tickets(100)")
        with ThreadPoolExecutor(1) as pool:
            undone = pool.submit(books.blocks.undo, 0)
            with pytest.raises(TimeoutError):
                undone.result(timeout=0.3)
            slow.commit()
            undone.result(timeout=10)
        books.redeemed, books.verdicts = [], []
        books.require_right_book()


def test_a_book_that_is_wrong_is_mended_beside_payments_and_once_by_two(database: str) -> None:
    with psycopg.connect(database, autocommit=True) as owner, ThreadPoolExecutor(3) as pool:
        books = History(owner)
        for number in range(5):
            books.take("pay", number)
        owner.execute("SELECT roll_up_exposure(3)")
        owner.execute("DELETE FROM exposure_delta")
        owner.execute("UPDATE exposure_counter SET num_tickets = num_tickets + 7, ev_numerator = 1")
        lacking = len(owner.execute(DIFFERENCE).fetchall())
        assert lacking > 1

        def mend() -> int:
            with psycopg.connect(database, autocommit=True) as connection:
                ((count,),) = connection.execute("SELECT mend_exposure()")
                return int(count)

        mends = [pool.submit(mend) for _ in range(2)]
        for number in range(5, 10):
            books.take("pay", number)
        assert sorted(done.result() for done in mends) == [0, lacking]
        books.require_right_book()


def test_mending_by_an_old_look_is_refused(database: str) -> None:
    with psycopg.connect(database) as connection:
        connection.isolation_level = psycopg.IsolationLevel.REPEATABLE_READ
        with pytest.raises(psycopg.errors.InvalidTransactionState, match="READ COMMITTED"):
            connection.execute("SELECT mend_exposure()")


def age(owner: Connection, days: int) -> None:
    """All that was issued was issued so many days earlier."""
    owner.execute("SET session_replication_role = replica")
    for table, column in (
        ("issuance", "created_at"),
        ("exposure_delta", "issued_hour"),
        ("exposure_counter", "issued_hour"),
    ):
        owner.execute(f"UPDATE {table} SET {column} = {column} - interval '{days * 24} hours'".encode())
    owner.execute("RESET session_replication_role")


def forget(owner: Connection, days: int) -> int:
    ((count,),) = owner.execute("SELECT forget_exposure(now() - make_interval(days => %s))", [days])
    return int(count)


def test_hours_long_past_are_forgotten_and_stay_so_when_their_tickets_are_redeemed(database: str) -> None:
    with psycopg.connect(database, autocommit=True) as owner:
        books = History(owner)
        books.commit(owner, usage(*books.gateways[0], sender=books.sender, ev_wei=10**15))
        owner.execute("SELECT roll_up_exposure(1000)")
        age(owner, 9)
        old, books.released = books.released, []
        books.commit(owner, usage(*books.gateways[0], sender=books.sender, ev_wei=10**15))
        assert forget(owner, 10) == 0
        assert forget(owner, 8) == 1
        books.require_right_book()
        owner.execute("SET session_replication_role = replica")  # an issuance is found by the time that its session was
        owner.execute(
            "UPDATE session SET created_at = created_at - interval '9 days' WHERE id = %s", [old[0].session_id]
        )
        owner.execute("RESET session_replication_role")
        late = redemption(
            sender=books.sender, recipient=old[0].recipient, rand=old[0].rand, nonce=1, face_value_wei=10**15
        )
        books.blocks.add(late)
        assert books.blocks.match() == {"matched": 1}
        books.require_right_book()
        assert owner.execute("SELECT roll_up_exposure(1000)").fetchone() == (2,)
        books.require_right_book()
        assert owner.execute("SELECT count(*) FROM exposure_counter").fetchone() == (1,)


def test_nothing_that_may_still_be_open_is_forgotten(database: str) -> None:
    with psycopg.connect(database, autocommit=True) as owner:
        books = History(owner)
        books.commit(owner, usage(*books.gateways[0], sender=books.sender))
        owner.execute("SELECT roll_up_exposure(1000)")
        age(owner, 30)
        insert = "INSERT INTO protocol_round VALUES (1, 0, %s, %s, %s, %s)"
        owner.execute(insert, [*[b"\x01" * 32] * 2, 3501, b"\x01" * 32])
        assert forget(owner, 8) == 0, "not of the chain's newest two rounds, however long they last"
        books.require_right_book()
        owner.execute("UPDATE protocol_round SET round = 3502")
        assert forget(owner, 8) == 1
        books.released = []
        books.require_right_book()
        books.commit(owner, usage(*books.gateways[0], sender=books.sender))
        owner.execute("SELECT roll_up_exposure(1000)")
        age(owner, 2)
        assert forget(owner, 0) == 0, "not of the last three days, whoever asks"
        books.require_right_book()


@pytest.mark.parametrize(
    "table", ["exposure_delta", "exposure_counter", "exposure_horizon", "coverage_gate", "cover_share"]
)
@pytest.mark.parametrize("role", ["clearinghouse_serve", "clearinghouse_admin"])
def test_no_role_changes_the_book_or_a_gate_but_through_its_functions(database: str, table: str, role: str) -> None:
    with psycopg.connect(database, autocommit=True) as connection:
        connection.execute(f"SET ROLE {role}".encode())
        connection.execute(f"SELECT * FROM {table}".encode())
        for statement in (f"DELETE FROM {table}", f"TRUNCATE {table}", f"INSERT INTO {table} DEFAULT VALUES"):
            with pytest.raises(psycopg.errors.InsufficientPrivilege):
                connection.execute(statement.encode())
        if role == "clearinghouse_admin":
            with pytest.raises(psycopg.errors.InsufficientPrivilege):
                connection.execute("SELECT set_coverage_gate('', 'ok', NULL, 1, '{}', '{}')")


def test_what_was_added_to_the_book_is_changed_by_nobody(database: str) -> None:
    with psycopg.connect(database, autocommit=True) as owner:
        for statement in ("UPDATE exposure_delta SET num_tickets = 0", "TRUNCATE exposure_delta"):
            with pytest.raises(psycopg.errors.InsufficientPrivilege, match="append-only"):
                owner.execute(statement.encode())
        assert Decimal(0) == owner.execute("SELECT count(*) FROM exposure_delta").fetchone()[0]  # type: ignore[index]
