-- Orders, and how each came to be where it is. Forward only: a later file changes it, never this one.

CREATE TABLE orders (
    -- Version 7, so that a guest's orders are in the order of their making.
    order_id      uuid PRIMARY KEY,
    user_id       uuid NOT NULL,
    -- SHA-256 of the Idempotency-Key that it was made with: the order isn't made twice even when its answer was lost.
    request_key   bytea NOT NULL CHECK (octet_length(request_key) = 32),

    -- What was ordered, as the guest asked for it and as the stay offered it then.
    room_type_id  uuid NOT NULL,
    stay_id       uuid NOT NULL,
    host_id       uuid NOT NULL,
    stay_name     text NOT NULL,
    region        text NOT NULL,
    check_in      date NOT NULL,
    check_out     date NOT NULL CHECK (check_out > check_in),
    guests        smallint NOT NULL CHECK (guests > 0),
    cancellation  text NOT NULL CHECK (cancellation IN ('FLEXIBLE', 'MODERATE', 'STRICT')),
    coupon_id     uuid,
    sale_claim_id uuid,
    -- The claims that the order really uses.
    claim_ids     uuid[] NOT NULL,
    -- The priced nights and what lowered them, as they are answered.
    price         jsonb NOT NULL,
    total         bigint NOT NULL CHECK (total >= 0),

    -- The saga. `phase` is what the steps come to.
    phase            text NOT NULL CHECK (phase IN (
        'HOLDING', 'AWAITING_PAYMENT', 'PAYING', 'CONFIRMING', 'CONFIRMED',
        'UNDOING_CANCELLED', 'UNDOING_EXPIRED', 'UNDOING_FAILED', 'CANCELLED', 'EXPIRED', 'FAILED')),
    end_as           text CHECK (end_as IN ('CANCELLED', 'EXPIRED', 'FAILED')),
    hold_nights      text NOT NULL,
    reserve_discount text NOT NULL,
    take_payment     text NOT NULL,
    confirm_booking  text NOT NULL,
    redeem_discount  text NOT NULL,
    booking_id       uuid,
    payment_key      text,
    settled_by       timestamptz,
    captured         bigint NOT NULL DEFAULT 0 CHECK (captured >= 0),
    refund_due       bigint NOT NULL DEFAULT 0 CHECK (refund_due BETWEEN 0 AND captured),
    refunded         bigint NOT NULL DEFAULT 0 CHECK (refunded BETWEEN 0 AND captured),
    expires_at       timestamptz NOT NULL,
    -- When somebody must look at it though nothing was heard of it; null once it is at rest.
    due_at           timestamptz,
    -- How often in a row it was looked at for want of an answer.
    reminders        integer NOT NULL DEFAULT 0,
    created_at       timestamptz NOT NULL,
    updated_at       timestamptz NOT NULL,
    -- When it was first confirmed, and when it first came to nothing.
    confirmed_at     timestamptz,
    ended_at         timestamptz,

    -- A booking that is paid for whole, or no order that is confirmed.
    CHECK (phase <> 'CONFIRMED' OR captured = total),
    CHECK ((end_as IS NOT NULL) = (phase LIKE 'UNDOING%' OR phase IN ('CANCELLED', 'EXPIRED', 'FAILED'))),
    CONSTRAINT orders_request UNIQUE (user_id, request_key)
);

CREATE INDEX orders_by_user ON orders (user_id, order_id DESC);
CREATE INDEX orders_by_due ON orders (due_at) WHERE due_at IS NOT NULL;
CREATE INDEX orders_unpaid ON orders (phase) WHERE phase IN ('HOLDING', 'AWAITING_PAYMENT', 'PAYING');

-- What happened to an order. Rows are added and never changed.
CREATE TABLE order_history (
    order_id   uuid NOT NULL REFERENCES orders,
    seq        integer NOT NULL,
    at         timestamptz NOT NULL,
    event      text NOT NULL,
    from_phase text NOT NULL,
    to_phase   text NOT NULL,
    detail     text,
    PRIMARY KEY (order_id, seq)
);
