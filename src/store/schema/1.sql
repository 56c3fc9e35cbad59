-- Version 1. Times are microseconds since 1970-01-01 UTC. Never changed: later versions are steps from here.

-- One row a watched run: the last that is known of it.
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
    ended             TEXT
) STRICT, WITHOUT ROWID;

-- One row an event, with the exact bytes that are sent for it on every attempt.
CREATE TABLE events (
    id      TEXT PRIMARY KEY,
    run_id  TEXT,
    at      INTEGER NOT NULL,
    payload TEXT NOT NULL
) STRICT, WITHOUT ROWID;

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
