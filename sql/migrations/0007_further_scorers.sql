-- name: 0007_further_scorers
-- purpose: Say that scores of pictures may come from further CLIPs than the one that ranked them when they were made.

comment on column ingested_parts.artifact_kind is 'What the file holds: pairs, dropped_pairs, text_tokens, image_tokens, codebook_usage, clip_scores, training_set, prompts, generations, rerank_scores or evaluations.';
comment on table rerank_scores is 'How well each picture matches its prompt, and its place among the candidates; one row per picture and CLIP.';
comment on column rerank_scores.part_path is 'Parquet file that holds the row: the generations themselves, or the scores of a further CLIP.';
