-- name: funnel_stage
-- purpose: Where in the funnel a candidate was lost: found, downloaded, decoded, kept. Decoding is done by the filter stage.
-- params: stage (text), reason (text)
-- returns: discover, download, decode, filter, or kept
create or replace macro funnel_stage(stage, reason) as
if(stage = 'filter' and reason in ('not_an_image', 'decode_error', 'too_many_pixels'), 'decode', stage);
