"""Plots of trainings: the right numbers in the right chart."""

from flows.report.curves import Logged
from flows.report.training import plots_of, took

SUMMARY = {
    "num_steps": 1_000, "duration_s": 60.0, "num_processes": 4, "pairs_per_s": 50.0, "tokens_per_s": 4_100.0, "mfu": 0.61,
    "data_wait_share": 0.02, "memory_bytes": 3 * 2**30,
}  # fmt: skip


def test_gradients_by_layer_are_the_last_ones():
    curves = {
        ("attention_00", "gradients"): [(0, 9.0), (10, 1.0)],
        ("attention_10", "gradients"): [(10, 2.0)],
        ("mlp_00", "gradients"): [(10, 3.0)],
        ("final", "gradients"): [(10, 4.0)],
    }
    [plot] = plots_of("train_transformer", Logged(curves, {}, {}))
    assert [(item.label, list(item.points)) for item in plot.series] == [("attention", [(0, 1.0), (10, 2.0)]), ("mlp", [(0, 3.0)])]


def test_losses_have_bits_on_the_right_and_rates_begin_at_zero():
    curves = {("text_loss", "train"): [(0, 6.0), (10, 5.0)], ("caption_gain", "validation"): [(0, 0.0), (10, 0.5)]}
    logged = Logged(curves, {"tokens_per_s": [(10, 900.0), (20, 1_000.0)]}, SUMMARY)
    loss, gain, rate = plots_of("train_transformer", logged)
    assert (loss.title, loss.look.y_name, loss.look.right[0]) == ("Loss per text token", "nats", "bits")
    assert (gain.title, [item.label for item in gain.series]) == ("Worth of a picture's own caption, per image token", ["validation"])
    assert (rate.title, rate.look.y_range) == ("Tokens per second", (0.0, 1_080.0))


def test_a_dvae_shows_its_codebook_in_tokens():
    curves = {(name, "validation"): [(0, 5.0)] for name in ("codes_used", "codes_dead", "perplexity")}
    [plot] = plots_of("train_dvae", Logged(curves, {}, {}))
    assert (plot.look.y_name, [item.label for item in plot.series]) == ("tokens", ["used", "dead", "perplexity"])


def test_what_a_training_took_in_words():
    assert took(Logged({}, {}, SUMMARY)) == (
        "1,000 steps in 60 s on 4 processes · 4,100 tokens/s · 61% of the device's peak (MFU) · 2.0% of the time waiting for data "
        "· 3.00 GiB at most"
    )
    bare = dict.fromkeys(SUMMARY) | {"num_steps": 3}
    assert took(Logged({}, {}, bare)) == "3 steps"
    assert took(Logged({}, {}, {})) == ""
