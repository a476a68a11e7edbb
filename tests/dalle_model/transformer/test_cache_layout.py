"""What a position reads from its slots is what its mask lets it see: each token once, no other."""

import pytest
import torch

from dalle_model.transformer.cache_layout import cache_layout
from dalle_model.transformer.masks import MaskKind, image_mask

KINDS: list[MaskKind] = ["row", "column", "conv", "full"]


@pytest.mark.parametrize(("grid_size", "kernel_size"), [(2, 3), (4, 3), (6, 3), (6, 5), (5, 7), (8, 11), (16, 11), (12, 11)])
@pytest.mark.parametrize("kind", KINDS)
def test_the_slots_read_hold_what_the_mask_shows(kind: MaskKind, grid_size: int, kernel_size: int) -> None:
    plan = cache_layout(kind, grid_size, kernel_size)
    mask = image_mask(kind, grid_size, kernel_size)
    holder = torch.full((plan.num_slots,), -1)
    for position, (first, count, is_masked) in enumerate(plan.reads()):
        holder[plan.writes[position]] = position
        expected = mask[position].nonzero().flatten().tolist()
        is_visible = plan.is_visible[position]
        at_once = holder[plan.first[position] : plan.first[position] + plan.num_read]
        assert sorted(at_once[is_visible].tolist()) == expected
        as_a_slice = holder[first : first + count]
        assert sorted((as_a_slice[is_visible[:count]] if is_masked else as_a_slice).tolist()) == expected


def test_only_the_convolutional_mask_ever_reads_slots_that_it_must_not_see() -> None:
    for kind in KINDS:
        masked = [position for position, (_, _, is_masked) in enumerate(cache_layout(kind, 32, 11).reads()) if is_masked]
        assert len(masked) < 6 * 32 if kind == "conv" else not masked


def test_memory_at_the_papers_layout() -> None:
    # 33 for a row; the convolutional ring holds 6 rows of 32, and 5 columns of it at both ends.
    assert {kind: cache_layout(kind, 32, 11).num_slots for kind in KINDS} == {"row": 33, "column": 1_024, "conv": 6 * 42, "full": 1_024}
    assert {kind: cache_layout(kind, 32, 11).num_read for kind in KINDS} == {"row": 33, "column": 32, "conv": 66, "full": 1_024}
