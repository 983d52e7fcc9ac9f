//! Protobuf's wire format, as far as OTLP needs it: the fields of a message, borrowed from its
//! bytes.
//!
//! No objects are built: a message is walked field by field, and unused fields cost nothing. So a
//! hostile request takes no more memory than its own bytes, however many empty messages it holds.

use crate::record::json::FieldError;

/// The value of one field.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Value<'a> {
    Varint(u64),
    Fixed64(u64),
    /// A text, bytes or a message.
    Bytes(&'a [u8]),
    Fixed32,
}

impl<'a> Value<'a> {
    /// Returns the bytes, or `None` if the field is of another type.
    pub(super) fn bytes(self) -> Option<&'a [u8]> {
        match self {
            Self::Bytes(bytes) => Some(bytes),
            _ => None,
        }
    }

    /// Returns the text, with U+FFFD in place of invalid UTF-8.
    pub(super) fn text(self) -> Option<String> {
        self.bytes().map(|bytes| String::from_utf8_lossy(bytes).into_owned())
    }

    /// Returns the number of a varint or of eight bytes.
    pub(super) fn number(self) -> Option<u64> {
        match self {
            Self::Varint(number) | Self::Fixed64(number) => Some(number),
            _ => None,
        }
    }
}

/// Iterator over the fields of a message in the order of its bytes. Ends after the first error.
pub(super) struct Fields<'a> {
    rest: &'a [u8],
}

/// Returns an iterator over the fields of a message.
pub(super) fn fields(message: &[u8]) -> Fields<'_> {
    Fields { rest: message }
}

/// Returns an iterator over the messages of one field.
pub(super) fn messages(
    message: &[u8],
    number: u64,
) -> impl Iterator<Item = Result<&[u8], FieldError>> {
    fields(message).filter_map(move |field| match field {
        Ok((found, Value::Bytes(bytes))) if found == number => Some(Ok(bytes)),
        Ok(_) => None,
        Err(error) => Some(Err(error)),
    })
}

impl<'a> Iterator for Fields<'a> {
    type Item = Result<(u64, Value<'a>), FieldError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.rest.is_empty() {
            return None;
        }
        let field = self.field();
        if field.is_none() {
            self.rest = &[];
        }
        Some(field.ok_or_else(|| {
            FieldError::silent("protobuf", "a whole message; the bytes do not decode")
        }))
    }
}

impl<'a> Fields<'a> {
    fn field(&mut self) -> Option<(u64, Value<'a>)> {
        let key = self.varint()?;
        let value = match key & 7 {
            0 => Value::Varint(self.varint()?),
            1 => Value::Fixed64(u64::from_le_bytes(self.take(8)?.try_into().ok()?)),
            2 => {
                let length = usize::try_from(self.varint()?).ok()?;
                Value::Bytes(self.take(length)?)
            }
            5 => self.take(4).map(|_| Value::Fixed32)?,
            // Groups, which no OTLP message has ever used.
            _ => return None,
        };
        (key >> 3 != 0).then_some((key >> 3, value))
    }

    fn varint(&mut self) -> Option<u64> {
        let mut number = 0u64;
        for shift in (0..64).step_by(7) {
            let byte = *self.take(1)?.first()?;
            number |= u64::from(byte & 0x7f) << shift;
            if byte < 0x80 {
                return Some(number);
            }
        }
        None
    }

    fn take(&mut self, length: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.rest.split_at_checked(length)?;
        self.rest = rest;
        Some(taken)
    }
}

/// Appends a numeric field. Protobuf leaves out a 0.
pub(super) fn write_number(out: &mut Vec<u8>, field: u8, number: u64) {
    if number > 0 {
        out.push(field << 3);
        write_varint(out, number);
    }
}

/// Appends a field that is a text, bytes or a message.
pub(super) fn write_bytes(out: &mut Vec<u8>, field: u8, bytes: &[u8]) {
    out.push(field << 3 | 2);
    write_varint(out, bytes.len() as u64);
    out.extend_from_slice(bytes);
}

fn write_varint(out: &mut Vec<u8>, mut number: u64) {
    while number >= 0x80 {
        out.push((number & 0x7f) as u8 | 0x80);
        number >>= 7;
    }
    out.push(number as u8);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn written_fields_are_read_back() {
        let mut message = Vec::new();
        write_number(&mut message, 1, 300);
        write_number(&mut message, 2, 0);
        write_number(&mut message, 3, u64::MAX);
        write_bytes(&mut message, 4, "é".repeat(100).as_bytes());
        message.extend([5 << 3 | 1, 1, 0, 0, 0, 0, 0, 0, 0, 6 << 3 | 5, 1, 2, 3, 4]);
        let read: Vec<_> = fields(&message).map(Result::unwrap).collect();
        assert_eq!(&read[..2], [(1, Value::Varint(300)), (3, Value::Varint(u64::MAX))]);
        assert_eq!(read[2].1.text().unwrap().chars().count(), 100);
        assert_eq!(&read[3..], [(5, Value::Fixed64(1)), (6, Value::Fixed32)]);
    }

    #[test]
    fn broken_bytes_are_an_error_and_the_end() {
        for broken in [
            &[0x0a][..],
            &[0x0a, 5, 1],
            &[0xff; 11],
            &[0x0b],
            &[0x00, 0x00],
            &[0x09, 1, 2],
            &[0x80],
        ] {
            let read: Vec<_> = fields(broken).collect();
            assert!(read.len() == 1 && read[0].is_err(), "{broken:?}: {read:?}");
        }
    }
}
