-- What a new store begins with: the same as all steps one after the other, at once. Times are microseconds since 1970-01-01 UTC.

-- One row a watched run: the last that is known of it, and what is to be done about it.
CREATE TABLE runs (
    id                TEXT PRIMARY KEY,
    name              TEXT,
    status            TEXT,
    samples_completed INTEGER,
    samples_failed    INTEGER,
    number_of_samples INTEGER,
    created_at        INTEGER,
    completed_at      INTEGER,
    watched_at        INTEGER NOT NULL,
    changed_at        INTEGER,
    progress_at       INTEGER,
    ended             TEXT,
    notify            TEXT,
    deadline          INTEGER,
    added             INTEGER NOT NULL DEFAULT 0,
    ended_at          INTEGER,
    overdue_told_at   INTEGER,
    stalled_told_at   INTEGER,
    spec_id           TEXT
) STRICT, WITHOUT ROWID;

CREATE INDEX runs_spec ON runs (spec_id, ended_at) WHERE ended = 'SUCCEEDED';
CREATE INDEX runs_ended ON runs (ended, status) WHERE ended NOT NULL;

-- Those that were removed by a command.
CREATE TABLE removed_runs (
    id TEXT PRIMARY KEY,
    at INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

-- One row an event, with the exact bytes that are sent for it on every attempt.
CREATE TABLE events (
    id      TEXT PRIMARY KEY,
    run_id  TEXT,
    at      INTEGER NOT NULL,
    payload TEXT NOT NULL
) STRICT, WITHOUT ROWID;

CREATE INDEX events_run ON events (run_id, at);
CREATE INDEX events_at ON events (at);

-- The outbox: one row for each (run, event, channel), for ever.
CREATE TABLE deliveries (
    id          INTEGER PRIMARY KEY,
    event_id    TEXT NOT NULL REFERENCES events (id),
    channel     TEXT NOT NULL,
    state       TEXT NOT NULL CHECK (state IN ('pending', 'delivered', 'dead')),
    attempts    INTEGER NOT NULL,
    due_at      INTEGER NOT NULL,
    owner       TEXT,
    lease_until INTEGER,
    last_error  TEXT,
    settled_at  INTEGER,
    UNIQUE (event_id, channel)
) STRICT;

CREATE INDEX deliveries_pending ON deliveries (channel, due_at) WHERE state = 'pending';
CREATE INDEX deliveries_unsettled ON deliveries (channel, state) WHERE state != 'delivered';
CREATE INDEX deliveries_leased ON deliveries (channel, lease_until) WHERE lease_until NOT NULL;

-- Channels whose receiver wants nothing more, as long as they are configured as they were.
CREATE TABLE disabled_channels (
    name        TEXT PRIMARY KEY,
    fingerprint TEXT NOT NULL,
    at          INTEGER NOT NULL,
    reason      TEXT NOT NULL
) STRICT, WITHOUT ROWID;

-- Moments to remember, by name, such as when an outage was last told.
CREATE TABLE moments (
    name TEXT PRIMARY KEY,
    at   INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
