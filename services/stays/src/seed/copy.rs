//! PostgreSQL's binary COPY format, as far as seeding needs it (PostgreSQL's documentation, "COPY", "Binary Format").

use uuid::Uuid;

use crate::calendar::Day;

const SIGNATURE: &[u8] = b"PGCOPY\n\xff\r\n\0";

/// PostgreSQL counts dates from 2000-01-01.
const POSTGRES_EPOCH: i32 = 10_957;

/// The type of an array's text elements.
const TEXT_OID: i32 = 25;

/// Rows, field by field.
pub(super) struct Rows {
    bytes: Vec<u8>,
    fields: i16,
}

impl Rows {
    /// No rows yet, of so many fields each.
    pub(super) fn new(fields: i16) -> Self {
        let mut bytes = SIGNATURE.to_vec();
        // No flags, no extension of the header.
        bytes.extend([0; 8]);
        Self { bytes, fields }
    }

    /// Begins a row.
    pub(super) fn row(&mut self) -> &mut Self {
        self.bytes.extend(self.fields.to_be_bytes());
        self
    }

    fn field(&mut self, value: &[u8]) -> &mut Self {
        self.length(value.len());
        self.bytes.extend_from_slice(value);
        self
    }

    fn length(&mut self, length: usize) {
        let length = i32::try_from(length).unwrap_or(i32::MAX);
        self.bytes.extend(length.to_be_bytes());
    }

    pub(super) fn int2(&mut self, value: i16) -> &mut Self {
        self.field(&value.to_be_bytes())
    }

    /// 0 is written as NULL.
    pub(super) fn int2_or_null(&mut self, value: i16) -> &mut Self {
        if value == 0 {
            self.bytes.extend((-1_i32).to_be_bytes());
            return self;
        }
        self.int2(value)
    }

    pub(super) fn int4(&mut self, value: i32) -> &mut Self {
        self.field(&value.to_be_bytes())
    }

    pub(super) fn int8(&mut self, value: i64) -> &mut Self {
        self.field(&value.to_be_bytes())
    }

    pub(super) fn float8(&mut self, value: f64) -> &mut Self {
        self.field(&value.to_be_bytes())
    }

    pub(super) fn text(&mut self, value: &str) -> &mut Self {
        self.field(value.as_bytes())
    }

    pub(super) fn uuid(&mut self, value: Uuid) -> &mut Self {
        self.field(value.as_bytes())
    }

    pub(super) fn date(&mut self, value: Day) -> &mut Self {
        self.int4(value.number() - POSTGRES_EPOCH)
    }

    pub(super) fn texts(&mut self, values: &[String]) -> &mut Self {
        let mut array = Vec::new();
        let dimensions = i32::from(!values.is_empty());
        // No element is NULL.
        for part in [dimensions, 0, TEXT_OID] {
            array.extend(part.to_be_bytes());
        }
        if dimensions == 1 {
            let count = i32::try_from(values.len()).unwrap_or(i32::MAX);
            for part in [count, 1] {
                array.extend(part.to_be_bytes());
            }
            for value in values {
                let length = i32::try_from(value.len()).unwrap_or(i32::MAX);
                array.extend(length.to_be_bytes());
                array.extend_from_slice(value.as_bytes());
            }
        }
        self.field(&array)
    }

    /// All of it, with its end.
    pub(super) fn finish(mut self) -> Vec<u8> {
        self.bytes.extend((-1_i16).to_be_bytes());
        self.bytes
    }
}
