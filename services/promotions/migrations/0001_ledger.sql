-- The ledger of promotions: what was sold, to whom, and how far the log has been read.
-- Every writer locks the sale's row first, so that what is counted, checked and written is one step.

CREATE TABLE sales (
    uid                   uuid PRIMARY KEY,
    name                  text        NOT NULL CHECK (length(name) BETWEEN 1 AND 63),
    kind                  text        NOT NULL CHECK (kind IN ('TIME_SALE', 'COUPON_CAMPAIGN')),
    -- As the operator declared it (SaleDefinition); the columns below are the ledger's own use of it.
    definition            jsonb       NOT NULL,
    generation            bigint      NOT NULL CHECK (generation >= 0),
    -- What the ledger admits. It grows before the gate's stock does, and shrinks after it.
    stock                 bigint      NOT NULL CHECK (stock BETWEEN 1 AND 4294967295),
    -- The highest perUserLimit there ever was: a lowered limit must not refuse what the gate has let in before.
    slots                 smallint    NOT NULL CHECK (slots BETWEEN 1 AND 10),
    claim_ttl_ms          bigint      CHECK (claim_ttl_ms > 0),
    coupon_valid_ms       bigint      CHECK (coupon_valid_ms > 0),
    topic                 text        NOT NULL,
    partitions            integer     NOT NULL CHECK (partitions > 0),
    -- The epoch given out last. Raised by compare and set only; a gate of a lower epoch is never written again.
    epoch                 bigint      NOT NULL DEFAULT 0 CHECK (epoch >= 0),
    -- The epoch whose gate was written last: below `epoch` while a recovery is under way.
    opened_epoch          bigint      NOT NULL DEFAULT 0,
    -- The highest sequence number recorded: a rebuilt gate goes on from here.
    last_seq              bigint      NOT NULL DEFAULT 0,
    -- Active claims. The check is the guard against overselling: whatever Redis and the log say, a batch that
    -- would break it is not committed.
    claimed               bigint      NOT NULL DEFAULT 0,
    -- Who recovers, and until when others keep off. A convenience: the epoch is what protects.
    recovery_owner        text,
    recovery_lease_until  timestamptz,
    recovery_requested_at timestamptz,
    recovery_reason       text,
    closed_at             timestamptz,
    drained_at            timestamptz,
    removed_at            timestamptz,
    created_at            timestamptz NOT NULL DEFAULT now(),
    CONSTRAINT sales_claimed_within_stock CHECK (claimed BETWEEN 0 AND stock),
    CONSTRAINT sales_opened_within_epoch CHECK (opened_epoch BETWEEN 0 AND epoch)
);

-- A name, and with it a topic, belongs to one living sale of either kind.
CREATE UNIQUE INDEX sales_name ON sales (name) WHERE removed_at IS NULL;

CREATE TABLE claims (
    claim_id      uuid PRIMARY KEY,
    sale_uid      uuid        NOT NULL REFERENCES sales (uid),
    user_id       uuid        NOT NULL,
    slot          smallint    NOT NULL CHECK (slot BETWEEN 0 AND 9),
    key_hash      bigint      NOT NULL,
    seq           bigint      NOT NULL CHECK (seq > 0),
    status        text        NOT NULL CHECK (status IN ('ACCEPTED', 'ISSUED', 'USED', 'RETURNED', 'EXPIRED')),
    -- By Redis's clock, when the unit was taken.
    claimed_at    timestamptz NOT NULL,
    -- By this server's clock, as are all that follow.
    recorded_at   timestamptz NOT NULL DEFAULT now(),
    -- Time sales: when the unit goes back to stock. Coupons: the end of the coupon's validity; nothing goes back.
    expires_at    timestamptz,
    -- Returned or expired: the unit is no longer this user's.
    ended_at      timestamptz,
    -- Its entry is known to be gone from Redis: the unit is for sale again.
    released_at   timestamptz,
    log_partition integer     NOT NULL,
    log_offset    bigint      NOT NULL,
    CONSTRAINT claims_ended CHECK ((ended_at IS NULL) = (status IN ('ACCEPTED', 'ISSUED', 'USED'))),
    CONSTRAINT claims_released CHECK (released_at IS NULL OR ended_at IS NOT NULL)
);

-- The guard of the limit: one active claim for each sale, user and slot.
CREATE UNIQUE INDEX claims_active_slot ON claims (sale_uid, user_id, slot) WHERE ended_at IS NULL;
CREATE INDEX claims_by_user ON claims (user_id, claim_id);
CREATE INDEX claims_due ON claims (expires_at) WHERE status = 'ACCEPTED';
CREATE INDEX claims_unreleased ON claims (sale_uid) WHERE ended_at IS NOT NULL AND released_at IS NULL;

-- Claims that may never be recorded (R7). Kept for as long as their record may still arrive, which ends with
-- the next fence.
CREATE TABLE voided_claims (
    sale_uid  uuid        NOT NULL REFERENCES sales (uid),
    claim_id  uuid        NOT NULL,
    epoch     bigint      NOT NULL,
    voided_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (sale_uid, claim_id)
);

-- How far each partition of a sale's log has been applied, and the highest fence met in it.
CREATE TABLE positions (
    sale_uid    uuid    NOT NULL REFERENCES sales (uid),
    partition   integer NOT NULL CHECK (partition >= 0),
    next_offset bigint  NOT NULL CHECK (next_offset >= 0),
    epoch       bigint  NOT NULL CHECK (epoch >= 0),
    PRIMARY KEY (sale_uid, partition)
);

-- Claims that the log held and the ledger had no room for. There must never be one; if there is, here is which.
CREATE TABLE refused_claims (
    sale_uid      uuid        NOT NULL REFERENCES sales (uid),
    claim_id      uuid        NOT NULL,
    user_id       uuid        NOT NULL,
    reason        text        NOT NULL CHECK (reason IN ('STOCK', 'LIMIT')),
    refused_at    timestamptz NOT NULL DEFAULT now(),
    log_partition integer     NOT NULL,
    log_offset    bigint      NOT NULL,
    PRIMARY KEY (sale_uid, claim_id)
);
