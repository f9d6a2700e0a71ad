"""Learning rate, averaging and the weight of the rate."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from vdsr_cli.training.schedule import ema_decay_at, learning_rate_factor, plateau_factor, rise


@given(step=st.integers(0, 999), warmup=st.integers(0, 500), cooldown=st.integers(0, 500))
def test_the_rate_never_leaves_0_to_1_and_is_never_nothing_before_the_end(step, warmup, cooldown):
    factor = learning_rate_factor(step, warmup=warmup, steps=1000, cooldown=cooldown)
    assert 0 < factor <= 1
    if warmup <= step < 1000 - cooldown:
        assert factor == 1


def test_warm_up_rises_and_cool_down_falls_in_equal_steps():
    factors = [learning_rate_factor(s, warmup=4, steps=20, cooldown=5) for s in range(20)]
    assert factors[:4] == pytest.approx([0.25, 0.5, 0.75, 1])
    assert factors[4:16] == [1] * 12
    assert factors[15:] == pytest.approx([1, 0.8, 0.6, 0.4, 0.2])


@given(losses=st.lists(st.floats(0.9, 1.1), max_size=60), rate=st.sampled_from([1e-4, 5e-6, 1e-7]))
def test_a_plateau_is_that_of_torch_with_the_released_settings(losses, rate):
    optimizer = torch.optim.SGD([torch.zeros(1)], lr=rate)
    theirs = torch.optim.lr_scheduler.ReduceLROnPlateau(
        optimizer, factor=0.1, patience=5, threshold=0.01, threshold_mode="rel", min_lr=1e-6
    )
    for count, loss in enumerate(losses, start=1):
        theirs.step(loss)
        expected = min(rate, optimizer.param_groups[0]["lr"])  # it raises a rate below its floor
        assert rate * plateau_factor(losses[:count], rate) == pytest.approx(expected)


@given(step=st.integers(0, 400), longer=st.integers(0, 10_000))
def test_lengthening_a_run_does_not_change_its_past(step, longer):
    short = learning_rate_factor(step, warmup=200, steps=500, cooldown=0)
    assert short == learning_rate_factor(step, warmup=200, steps=500 + longer, cooldown=0)


def test_past_the_end_the_rate_is_nothing_with_a_cool_down():
    assert learning_rate_factor(1200, warmup=0, steps=1000, cooldown=10) == 0


@given(st.integers(0, 10**6), st.floats(0, 1))
def test_the_average_is_young_at_first_and_then_as_asked(step, decay):
    assert 0 <= ema_decay_at(step, decay) <= decay
    assert ema_decay_at(step, decay) <= ema_decay_at(step + 1, decay)
    assert ema_decay_at(10**9, 0.999) == 0.999
    assert ema_decay_at(0, 0.999) == pytest.approx(0.1)


def test_the_rate_comes_to_weigh():
    assert [rise(step, steps=4) for step in (-3, 0, 1, 4, 9)] == [0, 0, 0.25, 1, 1]
    assert rise(0, steps=0) == 1
