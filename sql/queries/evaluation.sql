-- name: evaluation
-- purpose: How good the pictures of a batch are: retrieval, distances, copies, reconstructions, with 95% intervals, beside chance and real pictures.
-- params: generations_run (text, optional), figure (text, optional)
-- reads: figures, runs
-- returns: figure, pictures, prompt_set, best_of, blur_radius, value, low, high, num_samples, space, note; of the newest evaluation of the batch
with newest as (
    select figures.run_id
    from figures
    left join runs on figures.run_id = runs.run_id
    where figures.generations_run = coalesce($generations_run, figures.generations_run)
    order by
        runs.started_at desc,
        figures.run_id
    limit 1
)

select
    figure,
    pictures,
    prompt_set,
    best_of,
    blur_radius,
    value,
    low,
    high,
    num_samples,
    space,
    note
from figures
where
    run_id = (select newest.run_id from newest)
    and figure = coalesce($figure, figure)
order by
    list_position([
        'retrieval', 'clip_score', 'diversity', 'copies', 'copied_tokens', 'copied_features', 'frechet', 'kid', 'cmmd', 'psnr', 'ssim',
        'codes_used', 'perplexity'
    ], figure),
    list_position(['drawn', 'reconstructed', 'training', 'real', 'chance'], pictures),
    prompt_set,
    best_of,
    blur_radius
