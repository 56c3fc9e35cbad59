-- Version 3: runs that somebody took out of the watch, and what runs of a spec took.

-- Those that were removed by a command: looking for runs leaves them alone until somebody adds them.
CREATE TABLE removed_runs (
    id TEXT PRIMARY KEY,
    at INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

-- `added` is 2 where nobody named the run, and it was found.

-- What it was made from.
ALTER TABLE runs ADD COLUMN spec_id TEXT;

CREATE INDEX runs_spec ON runs (spec_id, ended_at) WHERE ended = 'SUCCEEDED';
CREATE INDEX runs_ended ON runs (ended, status) WHERE ended NOT NULL;
