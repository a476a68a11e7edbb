"""The Parquet schemas of every artefact. A schema's name and version are in its metadata and checked on reading."""

import pyarrow as pa


def _schema(name: str, version: int, fields: list[pa.Field]) -> pa.Schema:
    return pa.schema(fields, metadata={"schema": name, "version": str(version)})


def _required(name: str, kind: pa.DataType) -> pa.Field:
    return pa.field(name, kind, nullable=False)


# Tokens are lists, not fixed-size lists: pyarrow reads them 1.2 times faster and DuckDB unnests them 300 times faster.
_TOKENS = pa.list_(pa.field("element", pa.uint16(), nullable=False))

CANDIDATES = _schema(
    "candidates",
    3,
    [
        _required("candidate_id", pa.string()),
        _required("image_url", pa.string()),
        _required("caption", pa.string()),
        _required("page_url", pa.string()),
        _required("source", pa.string()),
        _required("position", pa.int32()),  # place among the page's images, from 0
        _required("found_in", pa.string()),  # where on the page: 'img alt', 'figcaption', …
        pa.field("document", pa.string()),  # the file that held the page, e.g. a WARC
        pa.field("date", pa.string()),  # when the page was captured, as the document says
        pa.field("licence", pa.string()),  # a URL or a name, as the page or table gives it
    ],
)

PAGES = _schema(
    "pages",
    1,
    [
        _required("page_url", pa.string()),  # or the path of a document that holds many pages
        pa.field("etag", pa.string()),  # what tells whether it changed
        pa.field("last_modified", pa.string()),
        _required("links", pa.list_(pa.string())),
    ],
)

IMAGES = _schema(
    "images",
    1,
    [
        _required("candidate_id", pa.string()),
        _required("image_url", pa.string()),
        _required("caption", pa.string()),
        _required("page_url", pa.string()),
        _required("source", pa.string()),
        _required("status", pa.string()),  # 'ok' or a code of `dalle_datasets.web.failures`
        pa.field("error", pa.string()),  # what was seen, for people
        pa.field("sha256", pa.string()),  # of the downloaded bytes
        pa.field("image", pa.binary()),  # the downloaded bytes, never re-encoded
    ],
)

MEASURES = _schema(
    "measures",
    4,
    [
        _required("candidate_id", pa.string()),
        pa.field("sha256", pa.string()),  # of the bytes that were measured
        _required("has_file_name", pa.bool_()),  # the caption is the name of a file
        _required("num_caption_words", pa.int32()),
        _required("num_caption_letters", pa.int32()),
        _required("boilerplate_share", pa.float32()),  # of the caption's letters
        _required("has_markup", pa.bool_()),  # remnants of HTML or a URL
        _required("has_personal", pa.bool_()),  # looks like an e-mail address or a phone number
        _required("language", pa.string()),  # ISO 639-1, 'und' if undecided
        _required("language_probability", pa.float32()),  # fastText's, for the language it named
        _required("dictionary_share", pa.float32()),  # of the caption's words
        pa.field("image_problem", pa.string()),  # why there are no pixels; the fields below are null then
        pa.field("image_detail", pa.string()),
        pa.field("width", pa.int32()),  # upright
        pa.field("height", pa.int32()),
        pa.field("is_plain", pa.bool_()),  # any decoder gets the canonical pixels from these bytes
        pa.field("pixel_sha256", pa.string()),
        pa.field("phash", pa.int64()),
        pa.field("dhash", pa.int64()),
        pa.field("thumbnail", pa.binary()),  # RGB, 4 x 4
        pa.field("contrast", pa.float32()),  # standard deviation of the brightness, in levels of 255
    ],
)

PAIRS = _schema(
    "pairs",
    1,
    [
        _required("pair_id", pa.int64()),
        _required("caption", pa.string()),
        _required("image", pa.binary()),
        _required("width", pa.int32()),
        _required("height", pa.int32()),
        _required("sha256", pa.string()),  # of the bytes
        _required("pixel_sha256", pa.string()),  # of the decoded RGB pixels
        _required("split", pa.string()),  # 'train' or 'validation'
        _required("num_caption_words", pa.int32()),
        _required("aspect_ratio", pa.float32()),  # long side / short side
        _required("language", pa.string()),
        _required("source", pa.string()),
        _required("page_url", pa.string()),
        _required("image_url", pa.string()),
        _required("candidate_id", pa.string()),
        pa.field("licence", pa.string()),  # as the page or table gives it
        pa.field("document", pa.string()),  # the file that held the page, e.g. a WARC
    ],
)

DROPPED_PAIRS = _schema(
    "dropped_pairs",
    1,
    [
        _required("candidate_id", pa.string()),
        _required("source", pa.string()),
        _required("stage", pa.string()),  # 'discover', 'download' or 'filter'
        _required("reason", pa.string()),  # a closed set of codes
        _required("detail", pa.string()),  # what was seen, for people
        _required("caption", pa.string()),
        _required("image_url", pa.string()),
        _required("page_url", pa.string()),
    ],
)

COLLECTED = _schema(
    "collected",
    1,
    [
        _required("candidate_id", pa.string()),
        _required("url", pa.string()),  # of the image, or of the page that was left out
        _required("page_url", pa.string()),
        _required("stage", pa.string()),  # 'kept', or where it was dropped
        _required("reason", pa.string()),  # empty if it was kept
    ],
)

TEXT_TOKENS = _schema(
    "text_tokens",
    1,
    [
        _required("pair_id", pa.int64()),
        _required("text_tokens", _TOKENS),  # without padding
        _required("num_text_tokens", pa.int32()),
        _required("is_truncated", pa.bool_()),
    ],
)

IMAGE_TOKENS = _schema(
    "image_tokens",
    1,
    [
        _required("pair_id", pa.int64()),
        _required("crop", pa.int16()),  # which crop of the picture, from 0
        _required("image_tokens", _TOKENS),  # row-major, image_grid_size ** 2 of them
    ],
)

CODEBOOK_USAGE = _schema(
    "codebook_usage",
    1,
    [
        _required("image_token", pa.int32()),  # every entry of the codebook, the dead ones too
        _required("occurrences", pa.int64()),
    ],
)

RECONSTRUCTIONS = _schema(
    "reconstructions",
    1,
    [
        _required("dvae_id", pa.string()),
        _required("picture", pa.string()),  # the file as it was named, or 'pair' and its id
        pa.field("pair_id", pa.int64()),  # of pairs only
        _required("psnr", pa.float64()),  # of the picture and what became of it, dB; 100 if they are the same
        _required("num_codes", pa.int32()),  # different tokens among its image tokens
        _required("image_tokens", _TOKENS),
    ],
)

# Half precision is plenty for a cosine: 2 bytes a number, so 128 bytes a picture for the demo's CLIP, 1 KiB for ViT-B/32.
_EMBEDDING = pa.list_(pa.field("element", pa.float16(), nullable=False))

CLIP_SCORES = _schema(
    "clip_scores",
    2,
    [
        _required("pair_id", pa.int64()),
        _required("clip_score", pa.float32()),  # cosine similarity, [-1, 1]
        _required("image_embedding", _EMBEDDING),  # of unit length; what "is it a copy?" compares with
    ],
)

SAFETY_SCORES = _schema(
    "safety_scores",
    1,
    [
        _required("pair_id", pa.int64()),
        _required("nsfw_score", pa.float32()),  # [0, 1]
        _required("watermark_score", pa.float32()),  # [0, 1]
    ],
)

TRAINING_SET = _schema(
    "training_set",
    1,
    [
        _required("pair_id", pa.int64()),
        _required("split", pa.string()),
        _required("caption", pa.string()),
        _required("text_tokens", _TOKENS),  # without padding
        _required("image_tokens", _TOKENS),
    ],
)

PROMPTS = _schema(
    "prompts",
    2,
    [
        _required("prompt_id", pa.string()),
        _required("prompt", pa.string()),
        _required("prompt_set", pa.string()),  # 'training', 'unseen_scene', 'held_out_pair', or the user's own name
        pa.field("expected", pa.string()),  # JSON of the scene, for the demo's checker
        pa.field("image", pa.binary()),  # a picture file whose upper part is to be completed
    ],
)

DROPPED_PROMPTS = _schema(
    "dropped_prompts",
    1,
    [
        _required("prompt_id", pa.string()),
        _required("prompt", pa.string()),
        _required("prompt_set", pa.string()),
        _required("reason", pa.string()),  # 'malformed', 'not_text', 'empty', 'too_long', 'duplicate' or 'bad_image'
        _required("detail", pa.string()),  # what was seen, for people
    ],
)

GENERATIONS = _schema(
    "generations",
    1,
    [
        _required("generation_id", pa.string()),
        _required("prompt_id", pa.string()),
        _required("prompt", pa.string()),
        _required("prompt_set", pa.string()),
        _required("candidate_index", pa.int32()),  # 0 … N-1
        _required("seed", pa.int64()),
        _required("image_tokens", _TOKENS),
        _required("clip_score", pa.float32()),  # cosine similarity, [-1, 1]
        _required("rank", pa.int32()),  # 1 is the best of the N candidates
        _required("image_path", pa.string()),  # relative to the data root
    ],
)

GENERATION_PARTS = _schema(
    "generation_parts",
    1,
    [
        *(field for field in GENERATIONS if field.name != "rank"),  # known when all candidates of a prompt are there
        _required("image_embedding", _EMBEDDING),
    ],
)

GENERATION_EMBEDDINGS = _schema(
    "generation_embeddings",
    1,
    [
        _required("generation_id", pa.string()),
        _required("clip_id", pa.string()),
        _required("image_embedding", _EMBEDDING),  # of unit length
    ],
)

RERANK_SCORES = _schema(
    "rerank_scores",
    1,
    [
        _required("generation_id", pa.string()),
        _required("clip_id", pa.string()),
        _required("clip_score", pa.float32()),  # cosine similarity, [-1, 1]
        _required("rank", pa.int32()),  # 1 is the best of the N candidates
    ],
)

BALLOTS = _schema(
    "ballots",
    1,
    [
        _required("ballot_id", pa.string()),
        _required("pair_number", pa.int32()),
        _required("prompt", pa.string()),
        _required("first", pa.string()),  # a run of generate_images, or the name of a folder of pictures
        _required("second", pa.string()),
        _required("first_picture", pa.string()),
        _required("second_picture", pa.string()),
        _required("is_first_left", pa.bool_()),
    ],
)

VOTES = _schema(
    "votes",
    1,
    [
        _required("ballot_id", pa.string()),
        _required("pair_number", pa.int32()),
        _required("prompt", pa.string()),
        _required("first", pa.string()),
        _required("second", pa.string()),
        _required("question", pa.string()),  # 'realism' or 'match'
        _required("voter", pa.string()),  # an id that the page drew at random
        _required("is_for_first", pa.bool_()),
    ],
)

FIGURES = _schema(
    "figures",
    1,
    [
        _required("figure", pa.string()),  # 'retrieval', 'frechet', 'copies', …
        _required("pictures", pa.string()),  # 'drawn', 'real', 'training', 'reconstructed', or 'chance'
        pa.field("prompt_set", pa.string()),  # of drawn pictures; 'seen_caption' where the captions occur in training
        pa.field("best_of", pa.int32()),  # candidates that the CLIP that ranks chose from
        pa.field("blur_radius", pa.float32()),  # of the blur on both sides, pixels
        _required("value", pa.float64()),
        pa.field("low", pa.float64()),  # of the 95% interval
        pa.field("high", pa.float64()),
        _required("num_samples", pa.int64()),  # independent prompts or pictures
        _required("space", pa.string()),  # whose features: 'clip ID', 'pixels' or 'tokens of dvae ID'
        pa.field("note", pa.string()),  # what to bear in mind, e.g. that the sample is small
    ],
)

EVALUATIONS = _schema(
    "evaluations",
    1,
    [
        _required("generation_id", pa.string()),
        _required("prompt_set", pa.string()),
        _required("object_right", pa.bool_()),
        _required("color_right", pa.bool_()),
        _required("background_right", pa.bool_()),
        _required("layout_right", pa.bool_()),
        _required("all_right", pa.bool_()),
    ],
)
