-- Payments, refunds, and the double-entry ledger of what the gateway holds.

CREATE TABLE payments (
    payment_id     uuid        PRIMARY KEY,
    order_id       uuid        NOT NULL,
    user_id        uuid        NOT NULL,
    payment_key    text        NOT NULL,
    amount         bigint      NOT NULL CHECK (amount > 0),
    -- ASKING: orders hasn't said yes yet. INTENT: the gateway may be asked; the outcome isn't known.
    -- WAITING: a virtual account waits for its deposit.
    state          text        NOT NULL CHECK (state IN ('ASKING', 'INTENT', 'WAITING', 'CAPTURED', 'REFUSED')),
    -- Part of the Idempotency-Key: a retry keeps it.
    attempt        integer     NOT NULL DEFAULT 1,
    captured       bigint      CHECK (captured > 0),
    -- Given back, and promised to be.
    refunded       bigint      NOT NULL DEFAULT 0 CHECK (refunded >= 0),
    method         text,
    provider       text,
    secret         text,
    refund_account jsonb,
    deposit_to     jsonb,
    refusal        text,
    approved_at    timestamptz,
    asks           integer     NOT NULL DEFAULT 0,
    last_asked_at  timestamptz NOT NULL DEFAULT now(),
    -- Until then a call that was sent may still be under way.
    call_until     timestamptz NOT NULL DEFAULT now(),
    -- When the settler asks the gateway about it; null: never.
    next_ask_at    timestamptz,
    created_at     timestamptz NOT NULL DEFAULT now(),
    updated_at     timestamptz NOT NULL DEFAULT now(),
    CONSTRAINT payments_attempt_once UNIQUE (order_id, payment_key),
    CONSTRAINT captured_has_an_amount CHECK ((state = 'CAPTURED') = (captured IS NOT NULL)),
    -- Guards "refunds <= capture".
    CONSTRAINT refunds_within_capture CHECK (refunded <= coalesce(captured, 0))
);

-- Guards "at most one capture per order": nothing else is tried while one may be, or is, captured.
CREATE UNIQUE INDEX payments_one_live ON payments (order_id) WHERE state IN ('INTENT', 'WAITING', 'CAPTURED');
CREATE INDEX payments_due ON payments (next_ask_at) WHERE next_ask_at IS NOT NULL;
CREATE INDEX payments_key ON payments (payment_key);

CREATE TABLE refunds (
    refund_id       uuid        PRIMARY KEY,
    payment_id      uuid        REFERENCES payments,
    order_id        uuid        NOT NULL,
    amount          bigint      NOT NULL CHECK (amount >= 0),
    reason          text        NOT NULL,
    state           text        NOT NULL CHECK (state IN ('INTENT', 'DONE', 'REFUSED')),
    attempt         integer     NOT NULL DEFAULT 1,
    transaction_key text        UNIQUE,
    refusal         text,
    asks            integer     NOT NULL DEFAULT 0,
    call_until      timestamptz NOT NULL DEFAULT now(),
    next_ask_at     timestamptz,
    created_at      timestamptz NOT NULL DEFAULT now(),
    updated_at      timestamptz NOT NULL DEFAULT now(),
    CONSTRAINT done_has_a_transaction CHECK ((state = 'DONE') = (transaction_key IS NOT NULL)),
    CONSTRAINT lives_on_a_payment CHECK (state = 'REFUSED' OR payment_id IS NOT NULL)
);

CREATE INDEX refunds_due ON refunds (next_ask_at) WHERE next_ask_at IS NOT NULL;
CREATE INDEX refunds_of_payment ON refunds (payment_id);

-- One journal for each transaction of the gateway, and the other way round.
CREATE TABLE journals (
    journal_id      uuid        PRIMARY KEY,
    payment_id      uuid        NOT NULL REFERENCES payments,
    order_id        uuid        NOT NULL,
    kind            text        NOT NULL CHECK (kind IN ('CAPTURE', 'REFUND')),
    transaction_key text        NOT NULL CONSTRAINT journals_transaction_once UNIQUE,
    refund_id       uuid        UNIQUE REFERENCES refunds,
    amount          bigint      NOT NULL CHECK (amount > 0),
    gateway_at      timestamptz NOT NULL,
    posted_at       timestamptz NOT NULL DEFAULT now(),
    posted_in       xid8        NOT NULL DEFAULT pg_current_xact_id()
);

-- Guards "at most one capture per payment".
CREATE UNIQUE INDEX journals_one_capture ON journals (payment_id) WHERE kind = 'CAPTURE';
CREATE INDEX journals_at ON journals (gateway_at);

CREATE TABLE entries (
    journal_id uuid     NOT NULL REFERENCES journals,
    line       smallint NOT NULL,
    -- GATEWAY: what the gateway owes us. GUESTS: what we owe for orders.
    account    text     NOT NULL CHECK (account IN ('GATEWAY', 'GUESTS')),
    amount     bigint   NOT NULL CHECK (amount <> 0),
    PRIMARY KEY (journal_id, line)
);

-- Guards "every journal sums to 0", at commit.
CREATE FUNCTION journal_is_balanced() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    total bigint;
    debits bigint;
    said bigint;
BEGIN
    SELECT coalesce(sum(amount), 0), coalesce(sum(amount) FILTER (WHERE amount > 0), 0) INTO total, debits
    FROM entries WHERE journal_id = NEW.journal_id;
    SELECT amount INTO said FROM journals WHERE journal_id = NEW.journal_id;
    IF total <> 0 OR debits <> said THEN
        RAISE EXCEPTION 'journal % sums to % with debits of % for %', NEW.journal_id, total, debits, said
            USING ERRCODE = 'check_violation';
    END IF;
    RETURN NULL;
END $$;

CREATE CONSTRAINT TRIGGER journals_balanced AFTER INSERT ON journals
    DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION journal_is_balanced();
CREATE CONSTRAINT TRIGGER entries_balanced AFTER INSERT ON entries
    DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION journal_is_balanced();

-- Guards "refunds <= capture" in the ledger itself.
CREATE FUNCTION refunds_are_covered() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    balance bigint;
BEGIN
    SELECT coalesce(sum(CASE kind WHEN 'CAPTURE' THEN amount ELSE -amount END), 0) INTO balance
    FROM journals WHERE payment_id = NEW.payment_id;
    IF balance < 0 THEN
        RAISE EXCEPTION 'payment % would have given back % more than it took', NEW.payment_id, -balance
            USING ERRCODE = 'check_violation';
    END IF;
    RETURN NULL;
END $$;

CREATE CONSTRAINT TRIGGER journals_covered AFTER INSERT ON journals
    DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION refunds_are_covered();

-- Guards "nothing is rewritten": not even by the tables' owner.
CREATE FUNCTION ledger_is_append_only() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION 'the ledger is only ever added to: % on % refused', TG_OP, TG_TABLE_NAME
        USING ERRCODE = 'insufficient_privilege';
END $$;

CREATE TRIGGER journals_append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON journals
    FOR EACH STATEMENT EXECUTE FUNCTION ledger_is_append_only();
CREATE TRIGGER entries_append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON entries
    FOR EACH STATEMENT EXECUTE FUNCTION ledger_is_append_only();

-- A journal is closed with the transaction that posted it.
CREATE FUNCTION journal_is_open() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF NOT EXISTS (
        SELECT FROM journals WHERE journal_id = NEW.journal_id AND posted_in = pg_current_xact_id()
    ) THEN
        RAISE EXCEPTION 'journal % is closed', NEW.journal_id USING ERRCODE = 'insufficient_privilege';
    END IF;
    RETURN NEW;
END $$;

CREATE TRIGGER entries_in_open_journal BEFORE INSERT ON entries
    FOR EACH ROW EXECUTE FUNCTION journal_is_open();

-- Where ledger and gateway differ, until they don't any more.
CREATE TABLE discrepancies (
    transaction_key text        PRIMARY KEY,
    kind            text        NOT NULL CHECK (kind IN ('NO_JOURNAL', 'NO_TRANSACTION', 'AMOUNT')),
    found_at        timestamptz NOT NULL DEFAULT now(),
    resolved_at     timestamptz
);

CREATE INDEX discrepancies_open ON discrepancies (kind) WHERE resolved_at IS NULL;

-- How far they have been compared; one row.
CREATE TABLE reconciliation (
    one           boolean     PRIMARY KEY DEFAULT true CHECK (one),
    checked_until timestamptz NOT NULL,
    next_at       timestamptz NOT NULL
);
