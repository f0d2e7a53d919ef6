-- The virtual account that an order's guest is to pay into: where, until when, and of which payment.
ALTER TABLE orders ADD COLUMN deposit jsonb;
