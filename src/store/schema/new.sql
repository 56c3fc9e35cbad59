-- What a new store begins with: the tables that all steps make one after the other, at once. Times are microseconds since
-- 1970-01-01 UTC.

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

-- The outbox: one row for each (run, event, channel), for ever.
CREATE TABLE deliveries (
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
    -- The run in whose order it is delivered; NULL where it is not about a run.
    run_id      TEXT,
    -- How often it was claimed: a claim is told from a later one by this.
    claims      INTEGER NOT NULL DEFAULT 0,
    -- Claims in a row whose process ended without a word.
    cut_off     INTEGER NOT NULL DEFAULT 0,
    -- The beginning of what the receiver said when it last refused.
    answer      TEXT,
    UNIQUE (event_id, channel)
) STRICT;

-- Not among the other indexes: without it, finding a run's next event takes time that is quadratic in what is pending.
CREATE INDEX deliveries_run ON deliveries (channel, run_id, id) WHERE run_id NOT NULL;

-- Every configured channel: how it is configured, and until when its receiver asked to be left alone.
CREATE TABLE channels (
    name        TEXT PRIMARY KEY,
    fingerprint TEXT NOT NULL,
    held_until  INTEGER
) STRICT, WITHOUT ROWID;

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
