-- name: human_votes
-- purpose: Which of two models people prefer: for how many prompts the majority of votes is for the first, with a 95% interval over prompts.
-- params: root (text), ballot_id (text, optional), min_votes (integer = 5)
-- reads: votes
-- returns: ballot_id, first, second, question, num_voters, num_prompts, num_with_fewer_votes, for_first, low, high, unanimous; a tie counts half
with counted as (
    select
        ballot_id,
        first,
        second,
        question,
        pair_number,
        count(*) as num_votes,
        avg(is_for_first::integer) as share
    from votes($root)
    where ballot_id = coalesce($ballot_id, ballot_id)
    group by all
),

voters as (
    select
        ballot_id,
        question,
        count(distinct voter) as num_voters
    from votes($root)
    group by all
),

decided as (
    select
        ballot_id,
        first,
        second,
        question,
        count(*) filter (where num_votes >= $min_votes) as num_prompts,
        count(*) filter (where num_votes < $min_votes) as num_with_fewer_votes,
        avg(case when share = 0.5 then 0.5 else (share > 0.5)::integer end) filter (where num_votes >= $min_votes) as for_first,
        avg((share in (0, 1))::integer) filter (where num_votes >= $min_votes) as unanimous
    from counted
    group by all
)

-- The interval is Wilson's, which is right for few prompts and for shares near 0 and 1, too.
select
    decided.ballot_id,
    decided.first,
    decided.second,
    decided.question,
    voters.num_voters,
    decided.num_prompts,
    decided.num_with_fewer_votes,
    decided.for_first,
    (
        decided.for_first + 1.92 / decided.num_prompts
        - 1.96 * sqrt(decided.for_first * (1 - decided.for_first) / decided.num_prompts + 0.9604 / decided.num_prompts ** 2)
    ) / (1 + 3.8416 / decided.num_prompts) as low,
    (
        decided.for_first + 1.92 / decided.num_prompts
        + 1.96 * sqrt(decided.for_first * (1 - decided.for_first) / decided.num_prompts + 0.9604 / decided.num_prompts ** 2)
    ) / (1 + 3.8416 / decided.num_prompts) as high,
    decided.unanimous
from decided
inner join voters on decided.ballot_id = voters.ballot_id and decided.question = voters.question
order by
    decided.ballot_id,
    decided.question desc
