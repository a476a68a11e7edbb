-- name: dropped_prompts
-- purpose: Which prompts of a batch were left out, and why.
-- params: run_id (text, optional), reason (text, optional), limit (integer = 100)
-- reads: dropped_prompts, latest_artifacts
-- returns: reason, detail, prompt_set, prompt; by reason
select
    reason,
    detail,
    prompt_set,
    prompt
from dropped_prompts
where
    run_id = coalesce($run_id, (select latest_artifacts.run_id from latest_artifacts where latest_artifacts.kind = 'generations'))
    and reason = coalesce($reason, reason)
order by
    reason,
    detail,
    prompt_id
limit $limit
