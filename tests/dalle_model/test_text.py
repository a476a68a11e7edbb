"""Captions survive encoding, dropout is a function of its seed, and a broken vocabulary is noticed."""

import random
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dalle_datasets.demo.emoji_scenes import all_scenes, caption_scene
from dalle_model.config.model import TokenizerConfig
from dalle_model.text import BpeTokenizer, normalize_caption

CAPTIONS = [caption_scene(scene, random.Random(i)) for i, scene in enumerate(all_scenes()[::7])]


@pytest.fixture(scope="module")
def tokenizer() -> BpeTokenizer:
    return BpeTokenizer.train(CAPTIONS, TokenizerConfig(vocab_size=400, max_text_tokens=18))


def test_captions_are_spelled_one_way():
    assert normalize_caption("  Cafe\u0301\t au \n LAIT ", lowercase=True) == "caf\u00e9 au lait"
    assert normalize_caption("Cafe\u0301", lowercase=False) == "Caf\u00e9"


@given(st.text(max_size=40))
def test_normalising_twice_changes_nothing(text):
    once = normalize_caption(text, lowercase=True)
    assert normalize_caption(once, lowercase=True) == once


@given(text=st.text(max_size=40), dropout=st.sampled_from([0.0, 0.1, 0.9]), seed=st.integers(0, 2**40))
def test_what_was_encoded_decodes_to_the_normalised_caption(tokenizer, text, dropout, seed):
    (ids,) = tokenizer.encode([text], dropout, seed)
    assert all(0 <= i < tokenizer.vocab_size for i in ids)
    assert tokenizer.decode(ids) == normalize_caption(text, lowercase=True)


def test_known_words_become_few_ids(tokenizer):
    (ids,) = tokenizer.encode(["a red apple on a blue background"])
    assert len(ids) <= 8
    assert tokenizer.encode(["A  RED apple on a blue background"]) == [ids]
    assert tokenizer.encode([""]) == [[]]


def test_without_skipped_merges_the_dropout_path_gives_the_library_s_encoding(tokenizer):
    """The merge loop is ours, because the library's dropout cannot be seeded: it must otherwise be the same BPE."""
    texts = [*CAPTIONS, "Zażółć gęślą jaźń 123 !!", "aaaaaaaaaaaa bbb", "蘋果"]
    assert tokenizer.encode(texts, dropout=1e-300) == tokenizer.encode(texts)


def test_dropout_is_a_function_of_caption_and_seed_alone(tokenizer):
    alone = [tokenizer.encode([caption], dropout=0.3, seed=7)[0] for caption in CAPTIONS[:50]]
    assert tokenizer.encode(CAPTIONS[:50], dropout=0.3, seed=7) == alone
    other = tokenizer.encode(CAPTIONS[:50], dropout=0.3, seed=8)
    assert sum(a != b for a, b in zip(alone, other, strict=True)) > 25


def test_dropout_skips_about_its_share_of_merges(tokenizer):
    plain = sum(map(len, tokenizer.encode(CAPTIONS)))
    some = sum(map(len, tokenizer.encode(CAPTIONS, dropout=0.1)))
    most = sum(map(len, tokenizer.encode(CAPTIONS, dropout=0.99)))
    num_bytes = sum(len(f" {caption}".encode()) for caption in CAPTIONS)
    assert plain < some < 2 * plain < most <= num_bytes


def test_training_again_in_another_process_gives_the_same_id(tokenizer, tmp_path):
    """`tokenizers` counts words in hash maps whose order differs between processes; ties between merges must not."""
    script = (
        "import random\n"
        "from dalle_datasets.demo.emoji_scenes import all_scenes, caption_scene\n"
        "from dalle_model.config.model import TokenizerConfig\n"
        "from dalle_model.text import BpeTokenizer\n"
        "captions = [caption_scene(s, random.Random(i)) for i, s in enumerate(all_scenes()[::7])]\n"
        "print(BpeTokenizer.train(captions, TokenizerConfig(vocab_size=400, max_text_tokens=18)).id)\n"
    )
    ids = {subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout.strip() for _ in range(2)}
    assert ids == {tokenizer.id}


def test_saved_and_loaded_it_is_the_same(tokenizer, tmp_path):
    tokenizer.save(tmp_path / "bpe")
    loaded = BpeTokenizer.load(tmp_path / "bpe")
    assert (loaded.id, loaded.vocab_size, loaded.lowercase) == (tokenizer.id, tokenizer.vocab_size, tokenizer.lowercase)
    assert loaded.encode(CAPTIONS, 0.2, 3) == tokenizer.encode(CAPTIONS, 0.2, 3)


def test_the_id_covers_whatever_decides_stored_tokens():
    def trained(lowercase: bool, max_text_tokens: int) -> str:
        config = TokenizerConfig(vocab_size=300, max_text_tokens=max_text_tokens, lowercase=lowercase)
        return BpeTokenizer.train(["a red apple"], config).id

    assert len({trained(True, 8), trained(False, 8), trained(True, 9)}) == 3


def test_no_captions_is_an_error():
    with pytest.raises(ValueError, match=r"needs captions to learn from, but there are none; check what the filters dropped"):
        BpeTokenizer.train([], TokenizerConfig())


def test_missing_broken_and_altered_vocabularies_are_errors(tokenizer, tmp_path: Path):
    with pytest.raises(ValueError, match=r"nowhere holds no tokenizer \(config\.json is missing\); run train_bpe"):
        BpeTokenizer.load(tmp_path / "nowhere")
    tokenizer.save(tmp_path / "bpe")
    file = tmp_path / "bpe" / "vocabulary.json"
    text = file.read_text()
    file.write_text(text.replace('"Ġbackground"', '"Ġforeground"'))
    with pytest.raises(ValueError, match=r"(the vocabulary has id .* but config\.json says|no readable tokenizer)"):
        BpeTokenizer.load(tmp_path / "bpe")
    file.write_text(text[: len(text) // 2])
    with pytest.raises(ValueError, match=r"holds no readable tokenizer .*; delete the folder and run train_bpe again"):
        BpeTokenizer.load(tmp_path / "bpe")
