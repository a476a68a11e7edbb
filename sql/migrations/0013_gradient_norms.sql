-- name: 0013_gradient_norms
-- purpose: Say that trainings log the norms of the gradients of each part of a network, too.

comment on column run_metrics.split is 'train or validation; gradients for the norm of the gradient of each part of the network, by its name.';
