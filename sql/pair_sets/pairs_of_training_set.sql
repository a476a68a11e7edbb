-- name: pairs_of_training_set
-- purpose: The pairs of an exported training set, with the scores that it was chosen by.
-- params: root (text), training_set_id (text, optional)
-- reads: training_set_pairs, training_sets, newest_training_set, pairs, clip_scores
-- returns: pair_id, source, clip_id, clip_score
select
    chosen.pair_id,
    pairs.source,
    training_sets.clip_id,
    max(clip_scores.clip_score) as clip_score
from training_set_pairs($root) as chosen
inner join training_sets on chosen.training_set_id = training_sets.training_set_id
inner join pairs on chosen.pair_id = pairs.pair_id
left join clip_scores on chosen.pair_id = clip_scores.pair_id and training_sets.clip_id = clip_scores.clip_id
where chosen.training_set_id = coalesce($training_set_id, (select training_set_id from newest_training_set))
group by
    chosen.pair_id,
    pairs.source,
    training_sets.clip_id
