"""Rates of those who watch: of now, and none that is a guess."""

from promptmill.verbs.rates import Landings, Rates


def rates_of(*looks: tuple[float, int]) -> list[float | None]:
    rates = Rates()
    return [rates.look("r", done, now) for now, done in looks]


def test_two_images_at_once_tell_no_rate():
    assert rates_of((0, 0), (0.001, 1), (0.002, 2)) == [None, None, None]


def test_the_rate_is_that_of_the_last_minute():
    assert rates_of((0, 0), (10, 10), (20, 20))[-1] == 1.0
    looks = [(10.0 * n, 10 * n) for n in range(12)] + [(110.0 + 10 * n, 110 + 50 * n) for n in range(1, 8)]
    assert rates_of(*looks)[-1] == 5.0


def test_there_is_no_rate_while_it_stands_still_nor_from_before_that():
    looks = [(float(n), 4 * n) for n in range(10)]
    assert rates_of(*looks)[-1] == 4.0
    stopped = [(9.0 + n, 36) for n in range(1, 601)]
    assert rates_of(*looks, *stopped)[-1] is None
    again = [(609.0 + n, 36 + 2 * n) for n in range(1, 6)]
    assert rates_of(*looks, *stopped, *again)[-5:] == [None, 2.0, 2.0, 2.0, 2.0]


def test_a_slow_run_has_a_rate_too():
    assert rates_of(*((100.0 * n, n) for n in range(8)))[-1] == 0.01


def test_images_that_were_entered_anew_begin_a_new_rate():
    assert rates_of((0, 0), (5, 5), (10, 10), (11, 2)) == [None, None, 1.0, None]


def landings_of(*looks: tuple[float, int]) -> Landings:
    landings = Landings()
    for now, count in looks:
        landings.look(count, now)
    return landings


def test_a_rate_so_far_leaves_stops_out():
    before = [(float(n), 4 * n) for n in range(10)]
    stopped = [(9.0 + n, 36) for n in range(1, 601)]
    again = [(609.0 + n, 36 + 4 * n) for n in range(1, 11)]
    assert landings_of(*before, *stopped).rate() == 4.0
    assert landings_of(*before, *stopped).stand_still(609.0)
    assert landings_of(*before, *stopped, *again).rate() == 4.0


def test_a_slow_rate_is_no_stop():
    assert landings_of(*((100.0 * n, n) for n in range(8))).rate() == 0.01
