-- name: shuffled_training_set
-- purpose: The rows chosen for a training set, in an order that only the seed decides.
-- params: seed (integer)
-- reads: chosen_pairs
-- returns: pair_id, split, caption, text_tokens, image_tokens
select
    pair_id,
    split,
    caption,
    text_tokens,
    image_tokens
from chosen_pairs
order by
    md5($seed || ':' || pair_id || ':' || crop),
    pair_id,
    crop
