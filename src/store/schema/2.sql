-- Version 2: what makes a run's watch durable, channels that are disabled, and what was told of the API.

-- The channels that tell of it, as a JSON array; NULL for all.
ALTER TABLE runs ADD COLUMN notify TEXT;
-- How long after its creation it is overdue, in microseconds.
ALTER TABLE runs ADD COLUMN deadline INTEGER;
-- 1 where it was added by a command, 0 where the configuration names it.
ALTER TABLE runs ADD COLUMN added INTEGER NOT NULL DEFAULT 0;
ALTER TABLE runs ADD COLUMN ended_at INTEGER;
ALTER TABLE runs ADD COLUMN overdue_told_at INTEGER;
ALTER TABLE runs ADD COLUMN stalled_told_at INTEGER;
UPDATE runs SET ended_at = coalesce(changed_at, watched_at) WHERE ended NOT NULL;

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

CREATE INDEX events_run ON events (run_id, at);
CREATE INDEX events_at ON events (at);
CREATE INDEX deliveries_unsettled ON deliveries (channel, state) WHERE state != 'delivered';
CREATE INDEX deliveries_leased ON deliveries (channel, lease_until) WHERE lease_until NOT NULL;
