-- name: measured
-- purpose: What the filters measured on every downloaded candidate under a data root, with what became of it.
-- params: root (text)
-- reads: outcomes
-- returns: candidate_id, source, stage, reason, caption, image_url, num_caption_words, language, width, height, pixel_sha256
create or replace macro measured(root) as table
select
    outcomes.candidate_id,
    outcomes.source,
    outcomes.stage,
    outcomes.reason,
    outcomes.detail,
    outcomes.caption,
    outcomes.image_url,
    measures.num_caption_words,
    measures.language,
    measures.width,
    measures.height,
    measures.pixel_sha256
from read_parquet(files_under(root, '/measures/*/*.parquet'), hive_partitioning = false, union_by_name = true) as measures
inner join outcomes on measures.candidate_id = outcomes.candidate_id and outcomes.stage in ('kept', 'decode', 'filter');
