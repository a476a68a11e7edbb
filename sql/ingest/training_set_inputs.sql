-- name: training_set_inputs
-- purpose: The content of every file a training set can be chosen from, for its id.
-- params: tokenizer_id (text), dvae_id (text), clip_id (text), safety_id (text)
-- reads: ingested_parts
-- returns: part_path, sha256; by path
select
    part_path,
    sha256
from ingested_parts
where
    artifact_kind = 'pairs'
    or (artifact_kind = 'text_tokens' and starts_with(part_path, 'text_tokens/tokenizer=' || $tokenizer_id || '/'))
    or (artifact_kind = 'image_tokens' and starts_with(part_path, 'image_tokens/dvae=' || $dvae_id || '/'))
    or (artifact_kind = 'clip_scores' and starts_with(part_path, 'clip_scores/clip=' || $clip_id || '/'))
    or (artifact_kind = 'safety_scores' and starts_with(part_path, 'safety_scores/safety=' || $safety_id || '/'))
order by part_path
