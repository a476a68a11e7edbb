"""The masks as pictures of the paper's Figure 11 and as a literal reading of its sentences."""

from textwrap import dedent

import pytest
import torch
from torch import Tensor

from dalle_model.transformer.masks import MaskKind, conv_offsets, image_mask, image_offsets, layer_kinds, stream_mask


def draw(mask: Tensor) -> str:
    return "".join("".join("#" if seen else "." for seen in row) + "\n" for row in mask.tolist())


def test_text_is_causal_and_the_image_sees_all_of_it() -> None:
    assert draw(stream_mask("row", num_text=3, grid_size=2, kernel_size=3)) == dedent("""\
        #......
        ##.....
        ###....
        ####...
        #####..
        ######.
        ###.###
    """)


def test_row_mask_on_a_4x4_grid_is_figure_11a() -> None:
    assert draw(image_mask("row", 4, 3)) == dedent("""\
        #...............
        ##..............
        ###.............
        ####............
        #####...........
        .#####..........
        ..#####.........
        ...#####........
        ....#####.......
        .....#####......
        ......#####.....
        .......#####....
        ........#####...
        .........#####..
        ..........#####.
        ...........#####
    """)


def test_column_mask_on_a_4x4_grid_is_figure_11b() -> None:
    assert draw(image_mask("column", 4, 3)) == dedent("""\
        #...............
        .#..............
        ..#.............
        ...#............
        #...#...........
        .#...#..........
        ..#...#.........
        ...#...#........
        #...#...#.......
        .#...#...#......
        ..#...#...#.....
        ...#...#...#....
        #...#...#...#...
        .#...#...#...#..
        ..#...#...#...#.
        ...#...#...#...#
    """)


def test_column_mask_after_transposing_the_grid_is_causal_inside_blocks_as_in_figure_11c() -> None:
    transposed = torch.arange(16).view(4, 4).T.flatten()
    block = torch.ones(4, 4).tril()
    assert torch.equal(image_mask("column", 4, 3)[transposed][:, transposed], torch.block_diag(*[block] * 4).bool())


def test_convolutional_mask_on_a_4x4_grid_wraps_around_the_rows_as_in_figure_11d() -> None:
    assert draw(image_mask("conv", 4, 3)) == dedent("""\
        #...............
        ##..............
        .##.............
        #.##............
        ##.##...........
        ###.##..........
        .###.##.........
        #.###.##........
        .#.###.##.......
        ..#.###.##......
        ...#.###.##.....
        ....#.###.##....
        .....#.###.##...
        ......#.###.##..
        .......#.###.##.
        ........#.###.##
    """)


def test_convolutional_mask_at_the_papers_size_has_66_offsets_and_looks_191_tokens_back() -> None:
    offsets = conv_offsets(32, 11)
    assert len(offsets) == 66
    assert max(offsets) == 191


@pytest.mark.parametrize(("grid_size", "kernel_size"), [(4, 3), (5, 3), (8, 5), (8, 7), (16, 11)])
def test_every_mask_is_what_the_paper_says_token_by_token(grid_size: int, kernel_size: int) -> None:
    reach = kernel_size // 2

    def may_attend(kind: MaskKind, query: int, key: int) -> bool:
        if key > query:
            return False
        query_row, query_column = divmod(query, grid_size)
        key_row, key_column = divmod(key, grid_size)
        match kind:
            case "row":  # the previous tokens in raster order, back to the one in the same column of the previous row
                return key == query or key_row == query_row or (key_row == query_row - 1 and key_column >= query_column)
            case "column":
                return key_column == query_column
            case "conv":  # walk back whole rows, then sideways, wrapping: the window seen from the query
                around = abs(query_column - key_column)
                return (query - key) // grid_size <= reach and min(around, grid_size - around) <= reach
            case "full":
                return True

    for kind in ("row", "column", "conv", "full"):
        expected = torch.tensor([[may_attend(kind, q, k) for k in range(grid_size**2)] for q in range(grid_size**2)])
        assert torch.equal(image_mask(kind, grid_size, kernel_size), expected), kind


def test_offsets_are_ascending_and_start_at_the_position_itself() -> None:
    for kind in ("row", "column", "conv", "full"):
        offsets = image_offsets(kind, 8, 5)
        assert offsets[0] == 0
        assert list(offsets) == sorted(set(offsets))


def test_layers_follow_the_papers_pattern() -> None:
    assert layer_kinds(8) == ("row", "column", "row", "row", "row", "column", "row", "conv")
    paper = layer_kinds(64)
    assert (paper.count("column"), paper.count("row"), paper.count("conv")) == (16, 47, 1)
    assert paper[-1] == "conv"
    assert all(kind == "column" for kind in paper[1::4])


def test_a_full_transformer_has_no_sparse_layer() -> None:
    assert layer_kinds(3, "full") == ("full", "full", "full")
