"""Distances agree with closed forms, with independent implementations, and with repeating what weights
count."""

from itertools import combinations

import numpy as np
import pytest
from scipy.linalg import sqrtm

from dalle_model.evaluation.distances import all_distances, as_features, cubic_kernel, frechet, gaussian_kernel, gaussian_mmd, kid
from dalle_model.evaluation.estimates import mean_estimate, share_estimate
from dalle_model.evaluation.likeness import SAME_DB, blur, psnr, ssim
from dalle_model.evaluation.retrieval import first_among, most_equal


def features(number, length=5, shift=0.0, seed=0):
    return np.random.default_rng(seed).normal(size=(number, length)) @ np.diag(1 + np.arange(length)) + shift


def by_the_book(first, second):
    """FID as it is usually written, with a matrix square root."""
    a, b = np.cov(first, rowvar=False), np.cov(second, rowvar=False)
    return float(np.square(first.mean(0) - second.mean(0)).sum() + np.trace(a + b - 2 * sqrtm(a @ b).real))


@pytest.mark.parametrize(("number", "other"), [(40, 30), (40, 4), (4, 3)])  # more and fewer pictures than features
def test_frechet_is_the_formula_with_the_square_root(number, other):
    first, second = features(number), features(other, shift=0.5, seed=1)
    assert frechet(first, second) == pytest.approx(by_the_book(first, second), rel=1e-5)
    assert frechet(second, first) == pytest.approx(frechet(first, second))


def test_frechet_of_two_lines_has_a_closed_form():
    """Of one feature it is the squared difference of the means and of the standard deviations."""
    first, second = features(50, 1), features(20, 1, shift=3, seed=1) * 2
    expected = (first.mean() - second.mean()) ** 2 + (first.std(ddof=1) - second.std(ddof=1)) ** 2
    assert frechet(first, second) == pytest.approx(expected)
    assert frechet(first, first) == pytest.approx(0, abs=1e-9)


@pytest.mark.parametrize(("distance", "kernel"), [(kid, cubic_kernel), (gaussian_mmd, gaussian_kernel)])
def test_kernel_distances_are_means_over_pairs_of_different_pictures(distance, kernel):
    first, second = features(7), features(6, shift=0.5, seed=1)
    single = {
        cubic_kernel: lambda x, y: (x @ y / len(x) + 1) ** 3, gaussian_kernel: lambda x, y: np.exp(-np.sum((x - y) ** 2) / 200)
    }[kernel]  # fmt: skip
    within = [np.mean([single(x, y) for x, y in combinations(some, 2)]) for some in (first, second)]
    between = np.mean([single(x, y) for x in first for y in second])
    assert distance(first, second)(np.ones(7), np.ones(6)) == pytest.approx(sum(within) - 2 * between)


def test_weights_count_pictures_as_often_as_they_say():
    """A kernel distance leaves out pairs of a picture with itself, which repeating it would count."""
    first, second, weights = features(6), features(5, seed=1), np.array([2.0, 0, 1, 1, 0, 2])
    repeated = np.repeat(first, weights.astype(int), 0)
    assert frechet(first, second, weights) == pytest.approx(frechet(repeated, second))
    kernel = cubic_kernel(repeated, repeated)
    is_other = np.repeat(np.arange(6), weights.astype(int))[:, None] != np.repeat(np.arange(6), weights.astype(int))
    rest = cubic_kernel(second, second)[~np.eye(5, dtype=bool)].mean() - 2 * cubic_kernel(repeated, second).mean()
    assert kid(first, second)(weights, np.ones(5)) == pytest.approx(kernel[is_other].mean() + rest)


def test_distances_tell_equal_sets_from_others_and_their_intervals_hold_the_value():
    def unit(seed, shift=0.0):
        made = np.random.default_rng(seed).normal(size=(60, 8)) + shift
        return made / np.linalg.norm(made, axis=1, keepdims=True)

    same, other = all_distances(unit(0), unit(1)), all_distances(unit(0), unit(2, 0.5))
    for name in ("frechet", "kid", "cmmd"):
        assert same[name].low <= same[name].value <= same[name].high < other[name].low
        assert same[name].num_samples == 60
    assert same["kid"].low < 0 < same["kid"].high
    assert all_distances(unit(0), unit(1)) == same


def test_sets_that_cannot_be_compared_are_refused():
    good, broken = features(4), features(4)
    broken[2, 1] = np.nan
    with pytest.raises(ValueError, match=r"features of shape \[1, 5\], but a distance takes two sets of at least two"):
        as_features(good, good[:1])
    with pytest.raises(ValueError, match="1 of 4 pictures have features that are not numbers; the network that made them is damaged"):
        as_features(good, broken)
    with pytest.raises(ValueError, match="features of lengths 5 and 3 cannot be compared; take both from one network"):
        as_features(good, features(4, 3))
    with pytest.raises(ValueError, match="a mean of no values was asked for"):
        mean_estimate(np.array([]))
    with pytest.raises(ValueError, match="1 of 2 values are not numbers"):
        mean_estimate(np.array([1, np.nan]))
    assert np.isnan(mean_estimate(np.array([0.5])).low), "one prompt has no interval"


def test_none_of_24_is_not_certain():
    """Wilson's interval of none and of all; of anything between it is the bootstrap's."""
    assert share_estimate(np.zeros(24)) == pytest.approx((0, 0, 1.96**2 / (24 + 1.96**2), 24))
    assert share_estimate(np.ones(24, bool))[:3] == pytest.approx((1, 24 / (24 + 1.96**2), 1))
    some = np.arange(24) / 24
    assert share_estimate(some) == mean_estimate(some)


def test_ssim_is_the_paper_s_formula_in_every_window():
    rng = np.random.default_rng(0)
    originals = rng.integers(0, 256, (2, 13, 12, 3), np.uint8)
    rebuilt = np.clip(originals + rng.normal(scale=40, size=originals.shape), 0, 255).astype(np.uint8)
    line = np.exp(-((np.arange(11) - 5) ** 2) / (2 * 1.5**2))
    window = np.outer(line, line) / line.sum() ** 2
    expected = []
    for x, y in zip(originals / 255, rebuilt / 255, strict=True):
        found = []
        for top, left, channel in np.ndindex(3, 2, 3):
            a, b = (p[top : top + 11, left : left + 11, channel] for p in (x, y))
            mean_a, mean_b = (window * a).sum(), (window * b).sum()
            var_a, var_b, cov = (
                (window * (a - mean_a) ** 2).sum(),
                (window * (b - mean_b) ** 2).sum(),
                (window * (a - mean_a) * (b - mean_b)).sum(),
            )
            found.append((2 * mean_a * mean_b + 1e-4) * (2 * cov + 9e-4) / ((mean_a**2 + mean_b**2 + 1e-4) * (var_a + var_b + 9e-4)))
        expected.append(np.mean(found))
    assert ssim(originals, rebuilt) == pytest.approx(expected)
    assert ssim(originals, originals) == pytest.approx([1, 1])
    with pytest.raises(ValueError, match="pictures of 8 x 8 are smaller than SSIM's window of 11 pixels"):
        ssim(originals[:, :8, :8], rebuilt[:, :8, :8])


def test_psnr_is_of_each_picture():
    black, white = np.zeros((2, 4, 4, 3), np.uint8), np.zeros((2, 4, 4, 3), np.uint8)
    white[1] = 51
    assert psnr(black, white) == pytest.approx([SAME_DB, 20 * np.log10(5)])


def test_blur_spreads_a_dot_and_keeps_its_light():
    dot = np.zeros((1, 33, 33, 3), np.uint8)
    dot[0, 16, 16] = 255
    assert (blur(dot, 0) == dot).all()
    spread = blur(dot, 1)[0, :, :, 0].astype(float)
    assert spread.max() < 60
    assert spread.sum() == pytest.approx(255, rel=0.1)


def test_the_chance_to_be_first_is_the_mean_over_all_draws_of_distractors():
    for num_better in range(6):
        draws = list(combinations(range(5), 2))  # the first `num_better` are better
        expected = np.mean([min(draw) >= num_better for draw in draws])
        assert first_among(np.array([num_better]), 5, 2) == pytest.approx([expected])
    assert first_among(np.array([0, 1]), 3).tolist() == [1, 0], "fewer captions than distractors: all are drawn"
    assert first_among(np.array([10]), 1_000)[0] == pytest.approx(np.prod([(990 - i) / (1000 - i) for i in range(99)]))


def test_the_most_equal_tokens_are_found_in_place():
    tokens = np.array([[1, 2, 3, 4], [4, 3, 2, 1]], np.uint16)
    assert most_equal(tokens, np.array([[1, 2, 3, 9], [0, 0, 0, 0]], np.uint16)).tolist() == [0.75, 0]
    assert most_equal(tokens, tokens[:0]).tolist() == [0, 0]
