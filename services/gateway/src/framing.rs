//! Where a request's body ends, so that no byte of the next request is ever taken for a part of it.
//!
//! This only counts. What the bytes say, and whether they are well formed, is for the proxy library, which reads those
//! that are counted here; where it doesn't agree about the end, the connection ends.

/// What is still to come of a request's body.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Framing {
    /// So many bytes.
    Length(u64),
    /// The line that says how long the next chunk is.
    Size {
        /// What its digits have said so far.
        bytes: u64,
        /// The digits are over: what follows is an extension.
        said: bool,
    },
    /// So many bytes of a chunk.
    Chunk(u64),
    /// The end of the line that a chunk's bytes are on.
    ChunkEnd,
    /// The fields after the last chunk, up to a blank line.
    Trailer {
        /// There is nothing on the line yet.
        blank: bool,
    },
    /// Nobody can say what: the library has to refuse it.
    Unclear,
}

impl Framing {
    /// There is no body, or no more of it.
    pub(crate) const WHOLE: Self = Self::Length(0);
    /// A body in chunks.
    pub(crate) const CHUNKED: Self = Self::Size {
        bytes: 0,
        said: false,
    };

    /// Whether nothing is still to come.
    pub(crate) fn is_whole(self) -> bool {
        self == Self::WHOLE
    }

    /// Takes from the start of `bytes` what belongs to the body; how many that are.
    pub(crate) fn take(&mut self, bytes: &[u8]) -> usize {
        let mut taken = 0;
        while taken < bytes.len() && !self.is_whole() {
            let (next, count) = self.step(&bytes[taken..]);
            *self = next;
            taken += count;
        }
        taken
    }

    /// Takes one byte, or as many as need no look.
    fn step(self, bytes: &[u8]) -> (Self, usize) {
        let plain = |left: u64| left.min(bytes.len() as u64);
        match (self, bytes[0]) {
            (Self::Length(left), _) => (Self::Length(left - plain(left)), plain(left) as usize),
            (Self::Chunk(left), _) if plain(left) == left => (Self::ChunkEnd, left as usize),
            (Self::Chunk(left), _) => (Self::Chunk(left - plain(left)), bytes.len()),
            (Self::Size { bytes: 0, .. }, b'\n') => (Self::Trailer { blank: true }, 1),
            (Self::Size { bytes, .. }, b'\n') => (Self::Chunk(bytes), 1),
            (Self::Size { bytes, said: false }, digit) if digit.is_ascii_hexdigit() => {
                (Self::one_more_digit(bytes, digit), 1)
            }
            (Self::Size { bytes, .. }, _) => (Self::Size { bytes, said: true }, 1),
            (Self::ChunkEnd, b'\n') => (Self::CHUNKED, 1),
            (Self::ChunkEnd, _) => (self, 1),
            (Self::Trailer { blank: true }, b'\n') => (Self::WHOLE, 1),
            (Self::Trailer { .. }, b'\n') => (Self::Trailer { blank: true }, 1),
            (Self::Trailer { .. }, b'\r') => (self, 1),
            (Self::Trailer { .. }, _) => (Self::Trailer { blank: false }, 1),
            (Self::Unclear, _) => (self, bytes.len()),
        }
    }

    fn one_more_digit(bytes: u64, digit: u8) -> Self {
        let value = char::from(digit).to_digit(16).unwrap_or_default();
        let bytes = bytes
            .checked_mul(16)
            .and_then(|bytes| bytes.checked_add(value.into()));
        bytes.map_or(Self::Unclear, |bytes| Self::Size { bytes, said: false })
    }
}

#[cfg(test)]
mod tests {
    use proptest::{collection::vec, prelude::*};

    use super::*;

    /// Takes the pieces one after the other; how many bytes were taken.
    fn taken(mut framing: Framing, pieces: &[&[u8]]) -> (usize, Framing) {
        let taken = pieces.iter().map(|piece| framing.take(piece)).sum();
        (taken, framing)
    }

    #[test]
    fn extensions_and_trailers_belong_to_the_body() {
        let body = b"3;name=\"a\"\r\nabc\r\n00\r\nx-sum: 1\r\nx-more: 2\r\n\r\n";
        let next = b"GET / HTTP/1.1\r\n";
        assert_eq!(
            taken(Framing::CHUNKED, &[&[&body[..], next].concat()]),
            (body.len(), Framing::WHOLE)
        );
    }

    #[test]
    fn a_chunk_of_more_bytes_than_can_be_counted_never_ends() {
        let body = b"10000000000000000\r\nabc\r\n0\r\n\r\nGET / HTTP/1.1\r\n";
        assert_eq!(
            taken(Framing::CHUNKED, &[body]),
            (body.len(), Framing::Unclear)
        );
    }

    proptest! {
        /// However the bytes are cut into pieces, the body ends where it ends.
        #[test]
        fn nothing_beyond_the_body_is_taken(
            chunks in vec(vec(any::<u8>(), 1..40), 0..5), next in vec(any::<u8>(), 0..40), cut in 0_usize..200,
        ) {
            let plain = chunks.concat();
            let mut chunked = Vec::new();
            for chunk in &chunks {
                chunked.extend_from_slice(format!("{:x}\r\n", chunk.len()).as_bytes());
                chunked.extend_from_slice(chunk);
                chunked.extend_from_slice(b"\r\n");
            }
            chunked.extend_from_slice(b"0\r\n\r\n");
            for (framing, body) in [(Framing::Length(plain.len() as u64), plain), (Framing::CHUNKED, chunked)] {
                let all = [&body[..], &next].concat();
                let (one, other) = all.split_at(cut.min(all.len()));
                prop_assert_eq!(taken(framing, &[one, other]), (body.len(), Framing::WHOLE));
            }
        }
    }
}
