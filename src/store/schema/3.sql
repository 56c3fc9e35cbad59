-- Version 3: runs that somebody took out of the watch.

-- Those that were removed by a command: looking for runs leaves them alone until somebody adds them.
CREATE TABLE removed_runs (
    id TEXT PRIMARY KEY,
    at INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

CREATE INDEX runs_ended ON runs (ended, status) WHERE ended NOT NULL;
