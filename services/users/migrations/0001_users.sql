-- The people who have an account, and the sessions they hold. Forward only: a later file changes it, never this one.

CREATE TABLE users (
    user_id       uuid PRIMARY KEY,
    -- Normalised before it gets here (ASCII, lower case), so that plain uniqueness is uniqueness without case.
    email         text NOT NULL UNIQUE CHECK (email = lower(email) AND length(email) BETWEEN 3 AND 254),
    name          text NOT NULL CHECK (length(name) BETWEEN 1 AND 100),
    -- A PHC string: algorithm, parameters, salt and hash.
    password_hash text NOT NULL CHECK (password_hash LIKE '$argon2id$%'),
    roles         text[] NOT NULL DEFAULT '{guest}' CHECK (roles <@ ARRAY['guest', 'host', 'admin']),
    -- SHA-256 of the Idempotency-Key that the account was made with: tells a repeated sign-up from a taken address
    -- even when the answer of the first was never stored.
    sign_up_key   bytea CHECK (octet_length(sign_up_key) = 32),
    created_at    timestamptz NOT NULL DEFAULT now(),
    updated_at    timestamptz NOT NULL DEFAULT now()
);

-- One row per sign-in, however often it is refreshed: a refresh token carries a secret of its family, which stays, and
-- a secret of its turn, which changes with each refresh. Only SHA-256 hashes of both are kept.
CREATE TABLE sessions (
    session_id   uuid PRIMARY KEY,
    user_id      uuid NOT NULL REFERENCES users ON DELETE CASCADE,
    family_hash  bytea NOT NULL CHECK (octet_length(family_hash) = 32),
    turn_hash    bytea NOT NULL CHECK (octet_length(turn_hash) = 32),
    turn         bigint NOT NULL DEFAULT 0,
    created_at   timestamptz NOT NULL DEFAULT now(),
    refreshed_at timestamptz NOT NULL DEFAULT now(),
    expires_at   timestamptz NOT NULL,
    ended_at     timestamptz,
    end_reason   text CHECK (end_reason IN ('SIGNED_OUT', 'REUSED', 'CROWDED_OUT')),
    CHECK ((ended_at IS NULL) = (end_reason IS NULL))
);

CREATE INDEX sessions_by_user ON sessions (user_id, refreshed_at DESC) WHERE ended_at IS NULL;
CREATE INDEX sessions_by_expiry ON sessions (expires_at);
