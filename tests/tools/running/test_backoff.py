"""How long to wait until a worker is started again."""

from eda_tools.running.backoff import Backoff


def test_each_delay_is_twice_the_one_before_up_to_the_longest() -> None:
    backoff = Backoff(0.5, 3.0, 60.0)
    assert [backoff.died(0.1) for _ in range(5)] == [0.5, 1.0, 2.0, 3.0, 3.0]


def test_it_begins_anew_when_a_worker_has_run_well() -> None:
    backoff = Backoff(1.0, 60.0, 60.0)
    assert [backoff.died(ran) for ran in (0.0, 59.9, 60.0, 1.0, 100.0)] == [1.0, 2.0, 1.0, 2.0, 1.0]


def test_any_number_of_deaths_can_be_counted() -> None:
    backoff = Backoff()
    assert {backoff.died(0.0) for _ in range(3000)} == {1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 60.0}
