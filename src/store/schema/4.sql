-- Version 4: the outbox keeps the order of a run's events, drops warnings that its end has overtaken, tells one claim of a
-- delivery from the next, and remembers what a receiver said and how a channel is configured.

CREATE TABLE deliveries_4 (
    id          INTEGER PRIMARY KEY,
    event_id    TEXT NOT NULL REFERENCES events (id),
    channel     TEXT NOT NULL,
    state       TEXT NOT NULL CHECK (state IN ('pending', 'delivered', 'dead', 'superseded')),
    attempts    INTEGER NOT NULL,
    due_at      INTEGER NOT NULL,
    owner       TEXT,
    lease_until INTEGER,
    last_error  TEXT,
    settled_at  INTEGER,
    run_id      TEXT,
    claims      INTEGER NOT NULL DEFAULT 0,
    cut_off     INTEGER NOT NULL DEFAULT 0,
    answer      TEXT,
    UNIQUE (event_id, channel)
) STRICT;
INSERT INTO deliveries_4 (id, event_id, channel, state, attempts, due_at, owner, lease_until, last_error, settled_at, run_id, claims)
    SELECT deliveries.id, event_id, channel, state, attempts, due_at, owner, lease_until, last_error, settled_at,
           CASE WHEN json_valid(payload) THEN iif(payload ->> '$.type' GLOB 'run.*', run_id, NULL) END, attempts
    FROM deliveries JOIN events ON events.id = event_id;
DROP TABLE deliveries;
ALTER TABLE deliveries_4 RENAME TO deliveries;
CREATE INDEX deliveries_pending ON deliveries (channel, due_at) WHERE state = 'pending';
CREATE INDEX deliveries_unsettled ON deliveries (channel, state) WHERE state IN ('pending', 'dead');
CREATE INDEX deliveries_leased ON deliveries (channel, lease_until) WHERE lease_until NOT NULL;
CREATE INDEX deliveries_run ON deliveries (channel, run_id, id) WHERE run_id NOT NULL;

-- Every configured channel: how it is configured, and until when its receiver asked to be left alone.
CREATE TABLE channels (
    name        TEXT PRIMARY KEY,
    fingerprint TEXT NOT NULL,
    held_until  INTEGER
) STRICT, WITHOUT ROWID;
