"""The stream: what each position holds, what it may know, and what the loss counts."""

import math
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F

from dalle_model.config.model import StreamShape, TransformerConfig
from dalle_model.transformer import NO_TOKEN, DALLETransformer

STREAM = StreamShape(text_vocab_size=20, max_text_tokens=5, codebook_size=11, image_grid_size=4)
CONFIG = TransformerConfig(num_layers=4, num_heads=2, d_model=16, conv_kernel_size=3)
TEXT = torch.tensor([[3, 1, 4, NO_TOKEN, NO_TOKEN], [9, 2, 6, 5, 3]])
IMAGE = torch.arange(32).remainder(11).view(2, 16)


def a_model(config: TransformerConfig = CONFIG) -> DALLETransformer:
    torch.manual_seed(0)
    return DALLETransformer(config, STREAM).double().eval()


def test_every_token_is_predicted_from_the_tokens_before_it_and_no_others() -> None:
    model = a_model()
    text_logits, image_logits = model(TEXT, IMAGE)
    assert text_logits.shape == (2, 5, 20)
    assert image_logits.shape == (2, 16, 11)
    for position in range(5):
        changed = TEXT.clone()
        changed[:, position] = 7
        text_after, image_after = model(changed, IMAGE)
        assert torch.equal(text_after[:, : position + 1], text_logits[:, : position + 1])
        assert not torch.allclose(image_after, image_logits), "the image must see every text token, the last one too"
        if position < 4:
            assert not torch.allclose(text_after[:, position + 1], text_logits[:, position + 1])
    for position in range(16):
        changed = IMAGE.clone()
        changed[:, position] = (changed[:, position] + 1) % 11
        text_after, image_after = model(TEXT, changed)
        assert torch.equal(text_after, text_logits)
        assert torch.equal(image_after[:, : position + 1], image_logits[:, : position + 1])
        if position < 15:
            assert not torch.allclose(image_after[:, position + 1], image_logits[:, position + 1])


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_nothing_leaks_backwards_in_training_precision(dtype: torch.dtype) -> None:
    model = a_model().to(dtype)
    _, before = model(TEXT, IMAGE)
    changed = IMAGE.clone()
    changed[:, 8:] = 0
    assert torch.equal(model(TEXT, changed)[1][:, :9], before[:, :9])


def test_the_stream_has_one_position_for_each_token_as_in_the_papers_256_plus_1024() -> None:
    assert StreamShape(text_vocab_size=16_384, max_text_tokens=256, codebook_size=8_192, image_grid_size=32).num_positions == 1_280
    model = a_model()
    lengths: list[int] = []
    model.blocks[0].register_forward_pre_hook(lambda _, inputs: lengths.append(inputs[0].shape[1]))
    model(TEXT, IMAGE)
    assert lengths == [5 + 16]


def test_the_first_text_token_has_one_distribution_learned_as_the_start_of_text() -> None:
    model = a_model()
    text_logits, _ = model(TEXT, IMAGE)
    assert torch.equal(text_logits[0, 0], text_logits[1, 0])
    text_loss, _ = model.loss(TEXT, IMAGE)
    text_loss.backward()  # type: ignore[no-untyped-call]
    assert model.start.grad is not None
    assert model.start.grad.abs().sum() > 0


def test_each_empty_text_position_has_a_pad_vector_of_its_own() -> None:
    model = a_model()
    empty = model.embed_text(torch.full((1, 5), NO_TOKEN))[0]
    assert torch.equal(empty, model.pad_embedding.weight + model.text_position_embedding.weight)
    full = model.embed_text(torch.tensor([[1, 2, 3, 4, 5]]))[0]
    assert torch.equal(full, model.text_embedding.weight[1:6] + model.text_position_embedding.weight)


def test_one_pad_for_all_empty_positions_is_a_choice() -> None:
    model = a_model(replace(CONFIG, pads="one"))
    assert model.pad_embedding.weight.shape == (1, 16)
    empty = model.embed_text(torch.full((1, 5), NO_TOKEN))[0] - model.text_position_embedding.weight
    torch.testing.assert_close(empty, model.pad_embedding.weight.expand(5, -1))
    text_loss, image_loss = model.loss(TEXT, IMAGE)
    assert torch.isfinite(text_loss + image_loss)


def test_an_image_token_is_embedded_as_token_plus_row_plus_column() -> None:
    model = a_model()
    embedded = model.embed_image(IMAGE)
    token, row, column = model.image_embedding.weight[IMAGE[1, 6]], model.row_embedding.weight[1], model.column_embedding.weight[2]
    torch.testing.assert_close(embedded[1, 6], token + row + column)


def test_losses_are_means_over_real_text_tokens_and_over_image_tokens() -> None:
    model = a_model()
    text_logits, image_logits = model(TEXT, IMAGE)
    text_loss, image_loss = model.loss(TEXT, IMAGE)
    is_token = TEXT != NO_TOKEN
    torch.testing.assert_close(text_loss, F.cross_entropy(text_logits[is_token], TEXT[is_token]))
    torch.testing.assert_close(image_loss, F.cross_entropy(image_logits.flatten(0, 1), IMAGE.flatten()))


def test_parts_of_a_batch_average_to_the_whole_batch_although_captions_differ_in_length() -> None:
    model = a_model()
    whole, _ = model.loss(TEXT, IMAGE)
    share = (TEXT != NO_TOKEN).sum() / 2
    parts = [model.loss(TEXT[i : i + 1], IMAGE[i : i + 1], num_text_tokens=share)[0] for i in range(2)]
    torch.testing.assert_close((parts[0] + parts[1]) / 2, whole)


def test_an_empty_caption_has_no_text_loss() -> None:
    text_loss, image_loss = a_model().loss(torch.full((2, 5), NO_TOKEN), IMAGE)
    assert text_loss == 0
    assert image_loss > 0


def test_untrained_losses_are_close_to_the_logarithm_of_each_vocabulary() -> None:
    text_loss, image_loss = a_model().loss(TEXT, IMAGE)
    assert text_loss.item() == pytest.approx(math.log(20), abs=0.1)
    assert image_loss.item() == pytest.approx(math.log(11), abs=0.1)


def test_layers_use_the_papers_masks() -> None:
    model = DALLETransformer(TransformerConfig(num_layers=6, num_heads=2, d_model=16, conv_kernel_size=3), STREAM)
    assert model.kinds == ("row", "column", "row", "row", "row", "conv")
    assert sorted(model.attention) == ["column", "conv", "row"]


def test_four_pairs_can_be_learned_by_heart() -> None:
    torch.manual_seed(0)
    model = DALLETransformer(CONFIG, STREAM)
    text, image = torch.randint(20, (4, 5)), torch.randint(11, (4, 16))
    text[:, 0] = torch.arange(4)  # the caption tells the pictures apart
    optimizer = torch.optim.AdamW(model.parameters(), 1e-2)
    for _ in range(150):
        text_loss, image_loss = model.loss(text, image)
        optimizer.zero_grad()
        (text_loss / 8 + image_loss * 7 / 8).backward()  # type: ignore[no-untyped-call]
        optimizer.step()
    assert image_loss.item() < 0.05


def test_checkpointing_changes_what_is_kept_but_no_gradient() -> None:
    model = a_model(TransformerConfig(num_layers=4, num_heads=2, d_model=16, conv_kernel_size=3, dropout=0.3)).train()
    kept: dict[bool, int] = {}
    gradients: dict[bool, list[torch.Tensor]] = {}

    def count(tensor: torch.Tensor) -> torch.Tensor:
        kept[is_on] += tensor.numel()
        return tensor

    for is_on in (False, True):
        model.activation_checkpointing, kept[is_on] = is_on, 0
        torch.manual_seed(1)  # the same dropout
        with torch.autograd.graph.saved_tensors_hooks(count, lambda tensor: tensor):
            loss = sum(model.loss(TEXT, IMAGE))
        gradients[is_on] = list(torch.autograd.grad(loss, list(model.parameters())))
    assert kept[True] < kept[False] / 4
    for one, other in zip(gradients[True], gradients[False], strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=1e-12)


def test_dropout_acts_in_training_only() -> None:
    model = a_model(TransformerConfig(num_layers=2, num_heads=2, d_model=16, conv_kernel_size=3, dropout=0.5))
    assert torch.equal(model(TEXT, IMAGE)[1], model(TEXT, IMAGE)[1])
    model.train()
    assert not torch.equal(model(TEXT, IMAGE)[1], model(TEXT, IMAGE)[1])
