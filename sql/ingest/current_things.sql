-- name: current_things
-- purpose: What is in use: the networks that serve, the newest thing of each kind and job, the newest training set, and all pictures.
-- reads: network_history, latest_artifacts, runs, newest_training_set
-- returns: id
with serving as (
    select network_id
    from network_history
    where became_current
    qualify row_number() over (partition by role, settings_id order by position desc) = 1
),

newest_runs as (
    select run_id
    from runs
    qualify row_number() over (partition by job order by started_at desc, run_id) = 1
)

select network_id as id from serving
union
select artifact_id from latest_artifacts
union
select run_id from newest_runs
union
select run_id from runs where job = 'generate_images'
union
select training_set_id from newest_training_set
order by id
