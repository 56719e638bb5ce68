"""One key against its limits."""

import pytest

from multiverse.serving.access.keys import KeyLimits
from multiverse.serving.access.limits import Account, TokenBucket
from multiverse.serving.access.refusals import Refused


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


def refusal(account: Account) -> Refused:
    with pytest.raises(Refused) as caught, account.request():
        pass
    return caught.value


def test_bucket_begins_with_a_minutes_tokens(clock: Clock) -> None:
    bucket = TokenBucket(60, clock)
    bucket.take(59)
    assert bucket.wait() == 0
    bucket.take(1)
    assert bucket.wait() == 1


def test_bucket_fills_evenly_and_not_over_its_brim(clock: Clock) -> None:
    bucket = TokenBucket(120, clock)
    bucket.take(120)
    clock.now = 0.5
    assert bucket.wait() == 0
    clock.now = 1000
    bucket.take(120)
    assert bucket.wait() == 0.5


def test_overdrawn_bucket_takes_its_time(clock: Clock) -> None:
    bucket = TokenBucket(60, clock)
    bucket.take(90)
    assert bucket.wait() == 31
    clock.now = 31
    assert bucket.wait() == 0


def test_smaller_bucket_does_not_keep_what_it_cannot_hold(clock: Clock) -> None:
    bucket = TokenBucket(600, clock)
    bucket.resize(60)
    bucket.take(60)
    assert bucket.wait() == 1


def test_requests_above_the_concurrency_are_refused_until_one_ends() -> None:
    account = Account("alice", KeyLimits(concurrency=2))
    with account.request():
        with account.request():
            refused = refusal(account)
        with account.request():
            pass
    assert (refused.reason, refused.retry_after) == ("concurrency", 1.0)
    assert refused.message == "the key 'alice' has 2 requests running or waiting: its limit is 2"


def test_failed_request_gives_its_place_back() -> None:
    account = Account("alice", KeyLimits(concurrency=1))
    with pytest.raises(RuntimeError), account.request():
        raise RuntimeError
    with account.request():
        pass


def test_used_tokens_refuse_the_next_request(clock: Clock) -> None:
    account = Account("alice", KeyLimits(tokens_per_minute=100), clock)
    with account.request():
        account.charge(40)
        account.charge(85)
    refused = refusal(account)
    assert (refused.reason, refused.message) == (
        "tokens_per_minute",
        "the key 'alice' has used its tokens: its limit is 100 per minute",
    )
    assert refused.retry_after == pytest.approx(15.6)
    clock.now = 15.6
    with account.request():
        pass


def test_refused_request_holds_no_place(clock: Clock) -> None:
    account = Account("alice", KeyLimits(concurrency=1, tokens_per_minute=60), clock)
    account.charge(60)
    assert refusal(account).reason == "tokens_per_minute"
    clock.now = 1
    with account.request():
        pass


def test_account_without_limits() -> None:
    account = Account("alice", KeyLimits())
    account.charge(10**9)
    with account.request(), account.request():
        assert account.width("parallel.width", 32, explicit=True) == 32


def test_new_limits_leave_what_was_used(clock: Clock) -> None:
    account = Account("alice", KeyLimits(concurrency=5, tokens_per_minute=60), clock)
    with account.request():
        account.limits = KeyLimits(concurrency=1, tokens_per_minute=60)
        assert refusal(account).reason == "concurrency"
    account.charge(90)
    account.limits = KeyLimits(tokens_per_minute=600)
    assert refusal(account).retry_after == pytest.approx(3.1)


@pytest.mark.parametrize(("asked", "explicit", "used"), [(4, True, 4), (2, True, 2), (8, False, 4), (2, False, 2)])
def test_width_within_the_limit_or_by_default(asked: int, explicit: bool, used: int) -> None:
    account = Account("alice", KeyLimits(max_width=4))
    assert account.width("parallel.max_width", asked, explicit=explicit) == used


def test_width_above_the_limit_is_refused() -> None:
    with pytest.raises(Refused) as caught:
        Account("alice", KeyLimits(max_width=4)).width("parallel.width", 5, explicit=True)
    assert (caught.value.reason, caught.value.param, caught.value.retry_after) == ("width", "parallel.width", None)
    assert caught.value.message == "parallel.width is 5: the key 'alice' may ask for at most 4"
