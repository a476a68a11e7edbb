-- name: 0014_networks
-- purpose: Which network served in each role when, and why.

create table network_history (
    role varchar not null,
    position integer not null,
    registered_at timestamp not null,
    settings_id varchar not null,
    network_id varchar not null,
    run_id varchar not null,
    path varchar not null,
    became_current boolean not null,
    why varchar not null,
    pairs_id varchar not null,
    num_pairs bigint,
    metrics varchar not null
);
comment on table network_history is 'Every registration of a network and every switch, from networks/<role>.jsonl. The last with became_current serves.';
comment on column network_history.role is 'tokenizer, dvae, clip or transformer.';
comment on column network_history.position is 'Place in the history of the role, from 0.';
comment on column network_history.registered_at is 'When, UTC.';
comment on column network_history.settings_id is 'Fingerprint of the settings that ask for the network; each has one that serves.';
comment on column network_history.network_id is 'Content id of the network.';
comment on column network_history.run_id is 'The training that made it.';
comment on column network_history.path is 'Where it lies, relative to the data root.';
comment on column network_history.became_current is 'Whether it served from then on.';
comment on column network_history.why is 'The reason, in words.';
comment on column network_history.pairs_id is 'Pairs that it learned from; empty if unknown.';
comment on column network_history.num_pairs is 'How many they were.';
comment on column network_history.metrics is 'Results that a policy may compare, as JSON.';
