// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Protobuf's wire format, as far as OTLP needs it.
//!
//! In: fields with their numbers. Out: a message's bytes, in the order in which the fields were written. It knows no
//! message, and it omits no default: who writes a field wants it.
//!
//! <https://protobuf.dev/programming-guides/encoding/>

/// The bytes of a message that is being written.
#[derive(Debug, Default)]
pub(super) struct Message(Vec<u8>);

impl Message {
    /// An empty message with room for `bytes`.
    pub(super) fn with_capacity(bytes: usize) -> Self {
        Self(Vec::with_capacity(bytes))
    }

    /// Its length so far.
    pub(super) fn len(&self) -> usize {
        self.0.len()
    }

    /// An integer or an enumeration; negative ones as their two's complement.
    pub(super) fn varint(&mut self, field: u8, value: u64) {
        self.tag(field, VARINT);
        self.push_varint(value);
    }

    /// A `fixed32`.
    pub(super) fn fixed32(&mut self, field: u8, value: u32) {
        self.tag(field, I32);
        self.0.extend(value.to_le_bytes());
    }

    /// A `fixed64`.
    pub(super) fn fixed64(&mut self, field: u8, value: u64) {
        self.tag(field, I64);
        self.0.extend(value.to_le_bytes());
    }

    /// Bytes, or a text.
    pub(super) fn bytes(&mut self, field: u8, value: &[u8]) {
        self.begin(field, value.len());
        self.0.extend_from_slice(value);
    }

    /// A message within this one.
    pub(super) fn message(&mut self, field: u8, write: impl FnOnce(&mut Self)) {
        // Most are shorter than 128 bytes.
        self.message_with_room(field, 1, write);
    }

    /// The same, of a message that most often has 128 bytes or more, and less than 16 KiB.
    pub(super) fn long_message(&mut self, field: u8, write: impl FnOnce(&mut Self)) {
        self.message_with_room(field, 2, write);
    }

    /// Leaves `room` bytes for the length, which is known afterwards: where it takes another number, the content moves.
    fn message_with_room(&mut self, field: u8, room: usize, write: impl FnOnce(&mut Self)) {
        self.tag(field, LEN);
        let start = self.0.len();
        self.0.resize(start + room, 0);
        write(self);
        let mut length = self.0.len() - start - room;
        let taken = varint_length(length);
        if taken != room {
            let content = start + room..self.0.len();
            self.0.resize(self.0.len().max(start + taken + length), 0);
            self.0.copy_within(content, start + taken);
            self.0.truncate(start + taken + length);
        }
        for byte in &mut self.0[start..start + taken - 1] {
            *byte = length as u8 | 0x80;
            length >>= 7;
        }
        self.0[start + taken - 1] = length as u8;
    }

    /// The head of a message within this one whose `length` bytes are appended next.
    pub(super) fn begin(&mut self, field: u8, length: usize) {
        self.tag(field, LEN);
        self.push_varint(length as u64);
    }

    /// Encoded fields, which end this message, or continue it.
    pub(super) fn append(&mut self, fields: &[u8]) {
        self.0.extend_from_slice(fields);
    }

    /// The bytes so far.
    pub(super) fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// The bytes.
    pub(super) fn finish(self) -> Vec<u8> {
        self.0
    }

    fn tag(&mut self, field: u8, wire_type: u64) {
        self.push_varint(u64::from(field) << 3 | wire_type);
    }

    fn push_varint(&mut self, mut value: u64) {
        while value >= 0x80 {
            self.0.push(value as u8 | 0x80);
            value >>= 7;
        }
        self.0.push(value as u8);
    }
}

/// The length of a field, of a number below 16, that is a message of `length` bytes.
pub(super) fn framed(length: usize) -> usize {
    1 + varint_length(length) + length
}

/// How many bytes a number takes, seven bits in each.
fn varint_length(number: usize) -> usize {
    (usize::BITS - (number | 1).leading_zeros()).div_ceil(7) as usize
}

const VARINT: u64 = 0;
const I64: u64 = 1;
const LEN: u64 = 2;
const I32: u64 = 5;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_of_any_length_is_framed_by_it() {
        for length in [0, 1, 127, 128, 129, 16_383, 16_384, 2_097_151, 2_097_152] {
            let content = vec![7; length];
            let [mut outer, mut long] = [Message::default(), Message::default()];
            outer.message(2, |inner| inner.0.extend(&content));
            outer.fixed32(16, 1);
            long.long_message(2, |inner| inner.0.extend(&content));
            long.fixed32(16, 1);

            let mut expected = vec![2 << 3 | 2];
            prost::encode_length_delimiter(length, &mut expected).expect("a vector has room");
            expected.extend(&content);
            assert_eq!(framed(length), expected.len(), "{length}");
            // Field 16 is the first whose tag takes two bytes: 16 << 3 | 5.
            expected.extend([0x85, 0x01, 1, 0, 0, 0]);
            assert!(outer.as_bytes() == expected, "{length}");
            assert!(long.finish() == expected, "{length}");
        }
    }
}
