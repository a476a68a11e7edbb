"""The sizing rule: more time and more pairs never choose less, promises are kept, hopeless plans are refused."""

from dataclasses import replace

import pytest

from dalle_model.config.presets import preset
from dalle_model.planning import MAX_PASSES, RESERVE, SIZES, Look, Machine, Times, choose_plan, duration, parse_budget

LOOK = Look(num_pairs=5_000, num_validation=200, num_captions=4_000, num_words=2_000, longest_caption=9, vocab_size=2_624, median_side=128)
CORES = Machine("cpu", 1, 2, 24 * 2**30, 1e11, 1e11)
GPUS = Machine("NVIDIA H100", 8, 128, 80 * 2**30, 4e14, 8e14)


def measure_at(rate: float):
    """Times of a machine that does `rate` FLOP/s in a training, whatever the size."""

    def measure(overrides):
        config = preset("demo", overrides)
        size = next(
            s
            for s in SIZES
            if (s.image_size, s.d_model, s.downsample) == (config.dvae.image_size, config.transformer.d_model, config.dvae.downsample)
        )
        return Times(
            3.0, 2e9 * size.image_size**2 / 1024 / rate, 4e9 * size.image_size**2 / 1024 / rate, size.work / rate, 1e7 / rate, 4e9 / rate
        )

    return measure


def plan(budget, look=LOOK, machine=CORES, rate=5e10):
    return choose_plan(look, machine, parse_budget(budget), measure_at(rate))


@pytest.mark.parametrize("budget", ["5m", "20m", "1h", "6h", "2d"])
@pytest.mark.parametrize("machine", [CORES, GPUS])
def test_a_plan_keeps_its_promise_and_is_a_configuration(budget, machine):
    made = plan(budget, machine=machine, rate=5e10 if machine is CORES else 5e14)
    assert made.total_s <= parse_budget(budget) * (1 - RESERVE) * 1.02
    config = preset("demo", made.overrides)
    assert config.tokenizer.max_text_tokens >= LOOK.longest_caption
    assert made.passes <= MAX_PASSES + 1
    assert config.train_transformer.precision == ("bf16" if machine is GPUS else "fp32")
    assert config.flow.num_processes == (8 if machine is GPUS else 1)


@pytest.mark.parametrize("size", SIZES)
def test_every_size_is_a_configuration_that_can_be_built(size):
    from dalle_model.planning import size_settings

    config = preset("demo", size_settings(size, LOOK, CORES))
    assert config.dvae.image_grid_size == size.grid
    assert config.transformer.d_head == 32 or config.transformer.d_head >= 48


def test_more_time_and_a_faster_machine_choose_no_smaller_size():
    chosen = [SIZES.index(plan(budget).size) for budget in ("5m", "20m", "2h", "1d")]
    assert chosen == sorted(chosen)
    assert chosen[0] < chosen[-1]
    assert SIZES.index(plan("20m", rate=5e13).size) >= SIZES.index(plan("20m").size)


def test_few_pairs_and_small_pictures_keep_the_network_small():
    few = plan("1d", replace(LOOK, num_pairs=300, num_validation=24))
    assert few.size.parameters < plan("1d").size.parameters
    assert "300 pairs are few" in " ".join(few.warnings)
    assert preset("demo", few.overrides).transformer.dropout > 0
    assert plan("1d", replace(LOOK, median_side=40)).size.image_size <= 60


def test_hopeless_plans_are_refused():
    with pytest.raises(ValueError, match=r"172 pairs are too few to learn from: below 200 .* --force"):
        plan("1d", replace(LOOK, num_pairs=172))
    with pytest.raises(ValueError, match=r"a budget of 1 s is too short: .* give --budget \d+m or more"):
        plan("1s")
    with pytest.raises(ValueError, match=r"are spent") as refused:
        choose_plan(LOOK, CORES, 100.0, measure_at(5e10), spent_s=60.0)
    minutes = int(str(refused.value).split("--budget ")[1].split("m")[0])
    assert choose_plan(LOOK, CORES, 60.0 * minutes, measure_at(5e10), spent_s=60.0).size in SIZES[:2]


@pytest.mark.parametrize(("text", "seconds"), [("90s", 90), ("20m", 1_200), ("1.5h", 5_400), ("1D", 86_400)])
def test_a_budget_is_a_number_with_a_unit(text, seconds):
    assert parse_budget(text) == seconds


@pytest.mark.parametrize("text", ["", "20", "m", "-5m", "0s", "infm", "nanm", "20 minutes"])
def test_anything_else_is_refused(text):
    with pytest.raises(ValueError, match=r"give a time such as 90s, 20m, 1\.5h or 1d"):
        parse_budget(text)


def test_durations_are_said_as_people_say_them():
    assert [duration(s) for s in (45, 720, 12_000)] == ["45 s", "12 min", "3 h 20 min"]
