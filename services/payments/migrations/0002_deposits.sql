-- Until when an order may be paid, as orders said when the payment began: no deposit is waited for any longer.
ALTER TABLE payments ADD COLUMN pay_by timestamptz;

-- A deposit that the gateway took back. Wider than before, so that the version before goes on writing.
ALTER TABLE discrepancies DROP CONSTRAINT discrepancies_kind_check;
ALTER TABLE discrepancies ADD CONSTRAINT discrepancies_kind_check
    CHECK (kind IN ('NO_JOURNAL', 'NO_TRANSACTION', 'AMOUNT', 'DEPOSIT_REVERSED')) NOT VALID;
