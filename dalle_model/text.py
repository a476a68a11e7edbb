"""Captions as numbers: normalise, then byte-level BPE (section 2.2), with BPE dropout that a seed repeats exactly.

Byte-level, so every caption of any language or script encodes and decodes without an unknown token. Padding is
not an id: the transformer has its own embedding for each empty text position.
"""

import hashlib
import heapq
import itertools
import json
import random
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from functools import lru_cache
from pathlib import Path

from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

from dalle_model.config.model import TokenizerConfig

VOCABULARY_FILE = "vocabulary.json"
CACHED_CAPTIONS = 100_000


def normalize_caption(caption: str, lowercase: bool) -> str:
    """The one spelling of a caption: Unicode NFC, single spaces, none at the ends; lower case when asked."""
    text = unicodedata.normalize("NFC", caption)
    if lowercase:
        text = unicodedata.normalize("NFC", text.lower())  # 'İ'.lower() is two code points
    return " ".join(text.split())


def known_captions(asked: Iterable[str], learned: Iterable[Iterable[str]]) -> set[str]:
    """Which of the captions asked about occur among those that were learned, too, whatever their case and
    spaces.

    What comes back is lower-cased as by `normalize_caption`.
    """
    wanted = {normalize_caption(caption, lowercase=True) for caption in asked}
    known: set[str] = set()
    for captions in learned:
        known |= wanted.intersection(normalize_caption(caption, lowercase=True) for caption in captions)
    return known


class BpeTokenizer:
    """A byte-level BPE vocabulary. Build one with `train` or `load`.

    The same captions and settings give the same vocabulary and so the same `id` on every machine.
    """

    def __init__(self, tokenizer: Tokenizer, lowercase: bool, max_text_tokens: int) -> None:
        self.lowercase = lowercase
        """Whether captions are lower-cased before encoding."""
        self.max_text_tokens = max_text_tokens
        """Where stored token lists are cut. `encode` itself cuts nothing, so that its callers can count what is cut."""
        self._tokenizer = tokenizer
        self._json = tokenizer.to_str(pretty=True)
        settings = f"lowercase={lowercase} max_text_tokens={max_text_tokens}"
        self.id = hashlib.sha256(f"{settings}\n{self._json}".encode()).hexdigest()[:12]
        """12 hex digits of everything that decides the stored tokens of a caption."""
        merges = json.loads(self._json)["model"]["merges"]
        self._rank_of_merge = {(left, right): rank for rank, (left, right) in enumerate(merges)}
        self._id_of_piece: dict[str, int] = tokenizer.get_vocab()
        # A training run encodes each caption hundreds of times; only the dropout differs.
        self._words = lru_cache(CACHED_CAPTIONS)(self._split_words)

    @classmethod
    def train(cls, captions: Iterable[str], config: TokenizerConfig) -> "BpeTokenizer":
        """Learn at most `config.vocab_size` ids from captions (fewer when the captions offer fewer merges).

        Raises `ValueError` when there is no caption.
        """
        tokenizer = Tokenizer(models.BPE())
        # A space in front of the first word too, so that it shares its ids with the same word further on.
        tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True)
        tokenizer.decoder = decoders.ByteLevel()
        trainer = trainers.BpeTrainer(
            vocab_size=config.vocab_size, initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), show_progress=False
        )
        counted = 0

        def normalized() -> Iterable[str]:
            nonlocal counted
            for caption in captions:
                counted += 1
                yield normalize_caption(caption, config.lowercase)

        tokenizer.train_from_iterator(normalized(), trainer)
        if not counted:
            raise ValueError("a tokenizer needs captions to learn from, but there are none; check what the filters dropped")
        return cls(tokenizer, config.lowercase, config.max_text_tokens)

    def extended(self, captions: Iterable[str], vocab_size: int) -> "BpeTokenizer":
        """This vocabulary with further merges, learned from captions on top of its own: at most `vocab_size` ids.

        Ids that are there keep their meaning. What a caption becomes changes only where new tokens join old ones. Pairs that occur once
        are not joined, so there may be fewer ids, or none that are new.
        """
        counts = Counter(word for caption in captions for word in self._plain_words(normalize_caption(caption, self.lowercase)))
        about = json.loads(self._json)
        merges = learn_merges(
            {tuple(token.value for token in self._tokenizer.model.tokenize(word)): count for word, count in sorted(counts.items())},
            known=set(about["model"]["vocab"]),
            num_merges=vocab_size - self.vocab_size,
        )
        for left, right in merges:
            about["model"]["vocab"][left + right] = len(about["model"]["vocab"])
            about["model"]["merges"].append([left, right])
        return type(self)(Tokenizer.from_str(json.dumps(about)), self.lowercase, self.max_text_tokens)

    def begins_with(self, tokenizer_id: str, vocab_size: int) -> bool:
        """Whether the first `vocab_size` ids are those of that tokenizer: this one, or one that it was extended from."""
        if tokenizer_id == self.id:
            return vocab_size == self.vocab_size
        if vocab_size >= self.vocab_size:
            return False
        model = (about := json.loads(self._json))["model"]
        model["vocab"] = {piece: i for piece, i in model["vocab"].items() if i < vocab_size}
        model["merges"] = [[left, right] for left, right in model["merges"] if left + right in model["vocab"]]
        shorter = type(self)(Tokenizer.from_str(json.dumps(about)), self.lowercase, self.max_text_tokens)
        return shorter.id == tokenizer_id

    def spelled(self, first_new: int) -> list[list[int]]:
        """Each id from `first_new` on as the ids below it that it was made of, in order."""
        merge_of = {left + right: (left, right) for left, right in self._rank_of_merge}
        made: dict[int, list[int]] = {}
        for i in range(first_new, self.vocab_size):
            halves = merge_of[self._piece_of_id(i)]
            made[i] = [piece for half in halves for piece in made.get(self._id_of_piece[half], [self._id_of_piece[half]])]
        return list(made.values())

    @property
    def vocab_size(self) -> int:
        """Number of ids in use; all of them are below this."""
        return self._tokenizer.get_vocab_size()

    def encode(self, captions: list[str], dropout: float = 0.0, seed: int = 0) -> list[list[int]]:
        """BPE ids of each caption, in [0, vocab_size), neither padded nor cut.

        With `dropout` each possible merge is skipped with that probability each time it comes up (Provilkov et al.,
        2020). What a caption becomes depends on (caption, dropout, seed) and on nothing else: not on its neighbours,
        threads or what was encoded before. `tokenizers` has a dropout that is not the published one, from a generator
        that cannot be seeded, which would make a resumed training differ from an undisturbed one.
        """
        texts = [normalize_caption(caption, self.lowercase) for caption in captions]
        if not dropout:
            return [encoding.ids for encoding in self._tokenizer.encode_batch_fast(texts)]
        return [self._encode_with_dropout(text, dropout, random.Random(f"{seed} {text}")) for text in texts]

    def decode(self, ids: list[int]) -> str:
        """The normalised caption of ids made by `encode`; ids that cut a character in two give U+FFFD there."""
        return str(self._tokenizer.decode(ids, skip_special_tokens=False)).removeprefix(" ")

    def save(self, directory: Path) -> None:
        """Write the vocabulary and how captions are normalised. The caller makes the folder appear whole if it must."""
        directory.mkdir(parents=True, exist_ok=True)
        (directory / VOCABULARY_FILE).write_text(self._json, encoding="utf-8")
        about = {"kind": "tokenizer", "id": self.id, "vocab_size": self.vocab_size}
        settings = {"lowercase": self.lowercase, "max_text_tokens": self.max_text_tokens}
        (directory / "config.json").write_text(json.dumps({**about, **settings}, indent=1))

    @classmethod
    def load(cls, directory: Path) -> "BpeTokenizer":
        """Read what `save` wrote. Raises `ValueError` when it is missing, broken or not what its id says."""
        try:
            about = json.loads((directory / "config.json").read_text())
            tokenizer = Tokenizer.from_str((directory / VOCABULARY_FILE).read_text(encoding="utf-8"))
            loaded = cls(tokenizer, about["lowercase"], about["max_text_tokens"])
        except FileNotFoundError as error:
            raise ValueError(f"{directory} holds no tokenizer ({Path(error.filename).name} is missing); run train_bpe") from error
        except Exception as error:  # `tokenizers` raises bare Exception for a broken file
            raise ValueError(f"{directory} holds no readable tokenizer ({error}); delete the folder and run train_bpe again") from error
        if loaded.id != about["id"]:
            raise ValueError(
                f"{directory}: the vocabulary has id {loaded.id}, but config.json says {about['id']}; "
                "delete the folder and run train_bpe again"
            )
        return loaded

    def _plain_words(self, text: str) -> list[str]:
        """The words of a normalised caption, in the alphabet that stands for bytes."""
        return [word for word, _ in self._tokenizer.pre_tokenizer.pre_tokenize_str(text)]

    def _piece_of_id(self, i: int) -> str:
        return str(self._tokenizer.id_to_token(i))

    def _split_words(self, text: str) -> tuple[tuple[str, ...], ...]:
        """The words of a normalised caption, each as its single-byte pieces."""
        return tuple(map(tuple, self._plain_words(text)))

    def _encode_with_dropout(self, text: str, dropout: float, rng: random.Random) -> list[int]:
        rank_of_merge, ids = self._rank_of_merge, []
        for word in self._words(text):
            pieces = list(word)
            while len(pieces) > 1:
                possible = [
                    (rank, i)
                    for i in range(len(pieces) - 1)
                    if (rank := rank_of_merge.get((pieces[i], pieces[i + 1]))) is not None and rng.random() >= dropout
                ]
                if not possible:
                    break
                _, i = min(possible)
                pieces[i : i + 2] = [pieces[i] + pieces[i + 1]]
            ids += [self._id_of_piece[piece] for piece in pieces]
        return ids


def learn_merges(counts: Mapping[tuple[str, ...], int], known: set[str], num_merges: int) -> list[tuple[str, str]]:
    """Up to `num_merges` pairs of neighbouring pieces to join, the most frequent first, from words in pieces and how often each occurs.

    `known` are pieces that exist already: a pair that gives one of them is not joined. `tokenizers` learns from single bytes only.
    """
    words, of_word = [list(word) for word in counts], list(counts.values())
    total: Counter[tuple[str, str]] = Counter()
    where: defaultdict[tuple[str, str], set[int]] = defaultdict(set)
    for i, word in enumerate(words):
        for pair in itertools.pairwise(word):
            total[pair] += of_word[i]
            where[pair].add(i)
    queue = [(-count, pair) for pair, count in total.items()]
    heapq.heapify(queue)
    known = set(known)
    merges: list[tuple[str, str]] = []
    while queue and len(merges) < num_merges:
        count, pair = heapq.heappop(queue)
        if -count != total[pair]:  # an older figure of the pair
            continue
        if -count < 2:
            break
        if (joined := "".join(pair)) in known:
            continue
        known.add(joined)
        merges.append(pair)
        changed: set[tuple[str, str]] = set()
        for i in sorted(where.pop(pair)):
            old, words[i] = words[i], _join(words[i], pair)
            for sign, word in ((-1, old), (1, words[i])):
                for neighbours in itertools.pairwise(word):
                    total[neighbours] += sign * of_word[i]
                    where[neighbours].add(i)
                    changed.add(neighbours)
        for neighbours in sorted(changed - {pair}):
            heapq.heappush(queue, (-total[neighbours], neighbours))
    return merges


def _join(word: list[str], pair: tuple[str, str]) -> list[str]:
    """A word with every such pair made one piece, from the left."""
    joined: list[str] = []
    i = 0
    while i < len(word):
        is_pair = tuple(word[i : i + 2]) == pair
        joined.append("".join(pair) if is_pair else word[i])
        i += 2 if is_pair else 1
    return joined
