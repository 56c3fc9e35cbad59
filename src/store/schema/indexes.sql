-- What makes a large store quick to look through: the indexes that all steps make.

CREATE INDEX runs_spec ON runs (spec_id, ended_at) WHERE ended = 'SUCCEEDED';
CREATE INDEX runs_ended ON runs (ended, status) WHERE ended NOT NULL;
CREATE INDEX events_run ON events (run_id, at);
CREATE INDEX events_at ON events (at);
CREATE INDEX deliveries_pending ON deliveries (channel, due_at) WHERE state = 'pending';
CREATE INDEX deliveries_unsettled ON deliveries (channel, state) WHERE state IN ('pending', 'dead');
CREATE INDEX deliveries_leased ON deliveries (channel, lease_until) WHERE lease_until NOT NULL;
