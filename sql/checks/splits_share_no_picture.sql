-- name: splits_share_no_picture
-- purpose: No picture is in both the training and the validation split.
-- reads: pairs
-- returns: pixel_sha256, num_train, num_validation
select
    pixel_sha256,
    count(*) filter (where split = 'train') as num_train,
    count(*) filter (where split = 'validation') as num_validation
from pairs
group by pixel_sha256
having count(distinct split) > 1
order by pixel_sha256
