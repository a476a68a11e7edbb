-- name: ranks_follow_scores
-- purpose: The candidates of a prompt are ranked 1 to N without gaps, and a better rank never has a lower score.
-- reads: scored_generations
-- returns: run_id, prompt, rank, expected_rank, clip_score
with ranked as (
    select
        run_id,
        prompt,
        prompt_set,
        clip_id,
        rank,
        clip_score,
        row_number() over candidates as expected_rank,
        lead(clip_score) over candidates as next_score
    from scored_generations
    window candidates as (partition by run_id, prompt_set, prompt_id, clip_id order by rank)
)

select
    run_id,
    prompt,
    rank,
    expected_rank,
    clip_score
from ranked
where
    rank <> expected_rank
    or clip_score < next_score
order by
    run_id,
    prompt,
    rank
