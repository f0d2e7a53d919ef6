-- Sessions that ended are removed long before they would have expired, and found by this.

CREATE INDEX sessions_by_end ON sessions (ended_at) WHERE ended_at IS NOT NULL;
