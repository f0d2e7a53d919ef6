-- Claims that orders keep and use. Whoever changes one locks its sale's row first, as for any other change of claims; who
-- locks reservations too takes them before the sales, each kind in the order of its ids.

-- One row for each order that ever asked. There is no way back from a later state to an earlier one.
CREATE TABLE reservations (
    order_id   uuid PRIMARY KEY,
    state      text        NOT NULL CHECK (state IN ('RESERVED', 'REDEEMED', 'RELEASED', 'REFUSED')),
    -- Why nothing is kept.
    refusal    text,
    -- None where nothing was kept: it was refused, or the release came before what it releases.
    claim_ids  uuid[]      NOT NULL,
    created_at timestamptz NOT NULL DEFAULT now(),
    changed_at timestamptz NOT NULL DEFAULT now(),
    CONSTRAINT reservations_refusal CHECK ((state = 'REFUSED') = (refusal IS NOT NULL)),
    CONSTRAINT reservations_keep_claims CHECK (state NOT IN ('RESERVED', 'REDEEMED') OR cardinality(claim_ids) > 0)
);

-- The order that keeps or uses the claim: one at most, as the column can't name two.
ALTER TABLE claims ADD COLUMN order_id uuid;

-- A reserved claim is active: it has its slot and its unit. That it is neither ACCEPTED nor ISSUED is what keeps it from
-- expiring, from being given back and from another order, also where an older version still runs. Not validated: rows
-- from before hold what was stricter, and nobody has to wait for a look at all of them.
ALTER TABLE claims
    DROP CONSTRAINT claims_status_check,
    DROP CONSTRAINT claims_ended,
    ADD CONSTRAINT claims_status_check
        CHECK (status IN ('ACCEPTED', 'ISSUED', 'RESERVED', 'USED', 'RETURNED', 'EXPIRED')) NOT VALID,
    ADD CONSTRAINT claims_ended
        CHECK ((ended_at IS NULL) = (status IN ('ACCEPTED', 'ISSUED', 'RESERVED', 'USED'))) NOT VALID,
    ADD CONSTRAINT claims_of_orders CHECK ((order_id IS NOT NULL) = (status IN ('RESERVED', 'USED'))) NOT VALID;
