"""The checker finds what it is there to find: for each invariant a history that keeps it, and one that breaks it."""

from __future__ import annotations

from dataclasses import replace

import pytest

from tests.drills.checker import Expected, check, sent_twice
from tests.drills.history import FAILED, OK, UNKNOWN, Arrival, Attempt, Delivery, History, Ledger, Sent, Try


def sent(n: int, outcome: str = OK, key: str | None = None, status: int | None = 202, took: float = 0.1) -> Sent:
    return Sent(n, key, outcome, (Try(float(n), n + took, status, retry_after=True),))


def good(count: int = 3, key: str | None = "k") -> History:
    """Messages 0 … count-1, accepted one after the other and delivered at the first attempt."""
    numbers = range(count)
    ledger = Ledger(
        messages={f"m{n}": n for n in numbers},
        deliveries=[Delivery(f"d{n}", n, "delivered", 1, 1) for n in numbers],
    )
    return History([sent(n, key=key) for n in numbers], [Arrival(n, f"d{n}", n + 0.5, 200) for n in numbers], ledger)


def broken(history: History, expected: Expected | None = None) -> set[str]:
    return {violation.invariant for violation in check(history, expected)}


def test_a_history_without_faults_is_good() -> None:
    assert check(good()) == []


def test_an_accepted_message_that_never_arrives_is_lost() -> None:
    history = good()
    del history.arrivals[1]
    assert broken(history) == {"I1 lost"}


def test_an_arrival_that_the_receiver_refused_is_none() -> None:
    history = good()
    history.arrivals[1] = replace(history.arrivals[1], status=500)
    assert broken(history) == {"I1 lost"}


def test_an_accepted_message_that_the_database_does_not_know_is_lost() -> None:
    history = good()
    del history.ledger.messages["m1"]
    del history.ledger.deliveries[1]
    assert broken(history) == {"I1 lost"}


def test_an_unfinished_job_is_a_loss_when_all_should_be_quiet() -> None:
    history = good()
    del history.ledger.deliveries[1]
    history.ledger.open = {"d1": "m1"}
    assert "I1 lost" in broken(history)


@pytest.mark.parametrize("arrives", [True, False])
def test_an_unknown_message_may_arrive_or_not(arrives: bool) -> None:
    history = good()
    history.sent[1] = sent(1, UNKNOWN, "k", None)
    if not arrives:
        del history.arrivals[1], history.ledger.deliveries[1], history.ledger.messages["m1"]
    assert check(history) == []


def test_a_refused_message_must_not_arrive() -> None:
    history = good()
    history.sent[1] = sent(1, FAILED, "k", 422)
    assert broken(history) == {"I1 lost"}


def test_what_nobody_sent_must_not_arrive() -> None:
    history = good()
    del history.sent[1]
    assert broken(history) == {"I1 lost"}


def test_two_delivery_ids_for_one_message_are_a_doubled_effect() -> None:
    history = good()
    history.arrivals.append(Arrival(1, "other", 9.0, 200))
    assert broken(history) == {"I2 doubled"}


def test_two_messages_under_one_message_id_are_a_doubled_accept() -> None:
    history = good()
    history.ledger.messages["again"] = 1
    assert "I2 doubled" in broken(history)


def test_a_repeat_is_excused_by_an_attempt_that_was_lost() -> None:
    history = good()
    history.arrivals.append(Arrival(1, "d1", 9.0, 200))
    history.ledger.deliveries[1] = Delivery("d1", 1, "delivered", 2, 2)
    assert broken(history) == {"I2 doubled"}, "nobody knows of a first attempt"
    history.ledger.attempts.append(Attempt("d1", 1, "unknown"))
    assert check(history) == []
    assert sent_twice(history) == 1


def test_a_repeat_within_an_attempt_is_excused_if_the_attempt_says_so() -> None:
    history = good()
    history.arrivals.append(Arrival(1, "d1", 9.0, 200))
    assert broken(history) == {"I2 doubled", "I3 attempts"}
    history.ledger.deliveries[1] = replace(history.ledger.deliveries[1], resent=True)
    assert check(history) == []


def test_a_request_without_an_attempt_on_record_is_found() -> None:
    history = good()
    history.arrivals.append(Arrival(1, "d1", 9.0, 200))
    history.ledger.attempts.append(Attempt("d1", 1, "failed"))
    assert broken(history) == {"I3 attempts"}


def test_an_attempt_without_an_outcome_is_found() -> None:
    history = good()
    history.ledger.attempts.append(Attempt("d1", 1, ""))
    assert broken(history) == {"I3 attempts"}


def test_messages_of_a_key_that_overtake_are_found() -> None:
    history = good()
    history.arrivals.reverse()
    assert broken(history) == {"I4 order"}


def test_messages_without_a_key_or_sent_at_the_same_time_may_overtake() -> None:
    history = good(key=None)
    history.arrivals.reverse()
    assert check(history) == []
    together = good()
    together.sent = [sent(n, key="k", took=10.0 - n) for n in range(3)]
    together.arrivals.reverse()
    assert broken(together) == {"I7 API"}, "slow, but not out of order"


def test_a_repeat_of_an_earlier_message_is_not_disorder() -> None:
    history = good()
    history.arrivals.append(Arrival(0, "d0", 9.0, 200))
    history.ledger.attempts.append(Attempt("d0", 1, "unknown"))
    history.ledger.deliveries[0] = Delivery("d0", 0, "delivered", 2, 2)
    assert check(history) == []


def test_an_unknown_message_may_come_late_but_not_before_what_was_accepted_before_it() -> None:
    history = good()
    history.sent[1] = sent(1, UNKNOWN, "k", None)
    history.arrivals = [history.arrivals[i] for i in (0, 2, 1)]
    assert check(history) == []
    history.arrivals = [history.arrivals[i] for i in (2, 0, 1)]
    assert broken(history) == {"I4 order"}


def test_a_delivery_ended_by_an_attempt_that_was_superseded_is_found() -> None:
    history = good()
    history.ledger.deliveries[1] = Delivery("d1", 1, "delivered", 2, 1)
    assert broken(history) == {"I5 fencing"}
    history = good()
    history.ledger.attempts.append(Attempt("d1", 2, "ok"))
    assert broken(history) == {"I5 fencing"}


def test_an_api_that_hangs_or_fails_uncleanly_is_found() -> None:
    history = good()
    history.sent[1] = sent(1, UNKNOWN, None, None, took=8.0)
    assert broken(history) == {"I7 API"}
    assert check(history, Expected(hang=10.0)) == []
    history.sent[1] = sent(1, UNKNOWN, None, 500)
    assert broken(history) == {"I7 API"}
    history.sent[1] = sent(1, UNKNOWN, None, 503)
    assert check(history) == []
    history.sent[1] = Sent(1, None, UNKNOWN, (Try(1.0, 1.1, 503, retry_after=False),))
    assert broken(history) == {"I7 API"}


def test_a_message_in_two_places_or_in_none_is_found() -> None:
    history = good()
    history.ledger.ends["m1"] = "failed"
    assert broken(history) == {"I9 states"}
    history = good()
    history.sent[1] = sent(1, UNKNOWN, None, None)
    del history.ledger.deliveries[1]
    assert broken(history) == {"I9 states"}


def test_dead_letters_and_dead_deliveries_are_the_same_ones() -> None:
    history = good()
    history.ledger.dead_letters.add("d1")
    assert broken(history) == {"I9 states"}


def test_a_drill_may_expect_another_ending() -> None:
    history = good()
    del history.arrivals[1]
    history.ledger.deliveries[1] = Delivery("d1", 1, "dead", 1, 1)
    history.ledger.dead_letters.add("d1")
    assert broken(history) == {"I1 lost"}
    assert check(history, Expected(endings={1: "dead"})) == []
