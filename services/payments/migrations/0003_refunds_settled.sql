-- A refused refund that a person has settled outside, or of which nothing is owed.
ALTER TABLE refunds ADD COLUMN resolved_at timestamptz;
