-- Room nights, what holds them, and bookings. Who writes nights of a room type locks the room type's row first (several
-- in the order of their ids, after any rows of holds): all changes of one room type are one after the other, and with
-- them the messages that tell of its availability.

CREATE TABLE room_types (
    room_type_id         uuid PRIMARY KEY,
    stay_id              uuid   NOT NULL,
    -- Grows with every change of a night: stays keeps the latest.
    availability_version bigint NOT NULL DEFAULT 0
) WITH (fillfactor = 50);

CREATE TABLE room_nights (
    room_type_id     uuid    NOT NULL REFERENCES room_types (room_type_id),
    night            date    NOT NULL,
    -- What the host offers now.
    offered          integer NOT NULL CHECK (offered >= 0),
    -- What may be reserved: what is offered, or what was reserved already when the host lowered it. Nobody loses a
    -- room that he was given, and no room beyond the lowered offer is given again.
    allotment        integer NOT NULL,
    reserved         integer NOT NULL DEFAULT 0,
    -- Of the calendar's change that set `offered`; an older one doesn't.
    calendar_version bigint  NOT NULL,
    PRIMARY KEY (room_type_id, night),
    -- The guard against overselling and against giving back twice: a transaction that would break it fails.
    CONSTRAINT room_nights_reserved_within_allotment CHECK (0 <= reserved AND reserved <= allotment),
    CONSTRAINT room_nights_allotment_is_offered_or_reserved CHECK (allotment = greatest(offered, reserved))
) WITH (fillfactor = 50);

-- One row for each order that ever asked. An active one (HELD or BOOKED) has one room of every night from check_in to
-- the day before check_out: reserved is the number of active rows that cover a night.
CREATE TABLE holds (
    order_id     uuid PRIMARY KEY,
    state        text        NOT NULL CHECK (state IN ('HELD', 'BOOKED', 'RELEASED', 'EXPIRED', 'REFUSED')),
    -- Why nothing was held.
    refusal      text,
    -- These are missing where a release came before its hold, and where a hold's dates were none.
    user_id      uuid,
    room_type_id uuid,
    check_in     date,
    check_out    date,
    guests       smallint,
    expires_at   timestamptz,
    booking_id   uuid,
    created_at   timestamptz NOT NULL DEFAULT now(),
    ended_at     timestamptz,
    CONSTRAINT holds_refusal CHECK ((state = 'REFUSED') = (refusal IS NOT NULL)),
    CONSTRAINT holds_active_has_terms CHECK (state NOT IN ('HELD', 'BOOKED') OR
        num_nulls(user_id, room_type_id, check_in, check_out, guests, expires_at) = 0),
    CONSTRAINT holds_booked_has_booking CHECK (state <> 'BOOKED' OR booking_id IS NOT NULL),
    CONSTRAINT holds_nights CHECK (check_in < check_out)
);

-- Holds by their end, for expiry.
CREATE INDEX holds_due ON holds (expires_at) WHERE state = 'HELD';

CREATE TABLE bookings (
    -- Version 7: newer ones are greater.
    booking_id   uuid PRIMARY KEY,
    order_id     uuid        NOT NULL UNIQUE REFERENCES holds (order_id),
    user_id      uuid        NOT NULL,
    stay_id      uuid        NOT NULL,
    room_type_id uuid        NOT NULL,
    check_in     date        NOT NULL,
    check_out    date        NOT NULL,
    guests       smallint    NOT NULL,
    status       text        NOT NULL DEFAULT 'CONFIRMED' CHECK (status IN ('CONFIRMED', 'CANCELLED')),
    created_at   timestamptz NOT NULL DEFAULT now(),
    cancelled_at timestamptz,
    CONSTRAINT bookings_cancelled_at CHECK ((status = 'CANCELLED') = (cancelled_at IS NOT NULL))
);

CREATE INDEX bookings_of_user ON bookings (user_id, booking_id);
