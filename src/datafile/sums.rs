//! Checksums of every byte of a data file, stored in its footer.
//!
//! A page's own CRC excludes its header, and nothing in Parquet covers bloom filters, page indexes
//! and the footer, which decide what is read at all: a flipped bit there changes an answer
//! silently. So the footer's key-value metadata holds a CRC-32 of each page with its header, of
//! each bloom filter, of the page indexes, and of the footer itself, computed with the digits of
//! its own checksum as zeros:
//!
//! ```text
//! gatelog.checksums = 1;<token>;<bytes of the page indexes>;<their crc32>;
//!                     <crc32 of the footer>;<parts>
//! ```
//!
//! Sizes and checksums are 8 hexadecimal digits. The token is random, so that the value is found in
//! the footer's bytes whatever clients sent. Parts are in file order, from the fifth byte to the
//! page indexes, without gaps. Each is its length as a varint and its checksum, little-endian, and
//! all of them are encoded in base 64. The file's `created_by` also says that checksums exist, so
//! that their loss is detected. Files without checksums, or with an unknown version of them, come
//! from an older version or another program, and are read unchecked.

use parquet::file::metadata::KeyValue;

use super::varint::{put_varint, varint};

/// Key of the checksums in the footer's metadata.
pub(super) const KEY: &str = "gatelog.checksums";
/// `created_by` of a file with such checksums.
pub(super) const CREATED_BY: &str = "gatelog version 1 (checksums 1)";
/// Bytes of a file before its first page.
pub(super) const FIRST: usize = 4;
/// Bytes after the footer: its length and the magic.
pub(super) const TRAILER: usize = 8;
const VERSION: &str = "1";
const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

/// A part of a file and its checksum.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Part {
    pub(super) start: u64,
    pub(super) len: u32,
    crc: u32,
}

impl Part {
    /// Returns the offset of the end of the part.
    pub(super) fn end(&self) -> u64 {
        self.start + u64::from(self.len)
    }

    /// Returns true if these bytes, which start at the part's offset, match its checksum.
    pub(super) fn holds(&self, bytes: &[u8]) -> bool {
        crc32fast::hash(bytes) == self.crc
    }
}

/// Checksums of a file's parts, in file order.
#[derive(Clone, Debug, Default)]
pub(super) struct Sums {
    pub(super) parts: Vec<Part>,
}

impl Sums {
    /// Returns the offset of the next part.
    pub(super) fn end(&self) -> u64 {
        self.parts.last().map_or(FIRST as u64, Part::end)
    }

    /// Adds the next part.
    pub(super) fn add(&mut self, bytes: &[u8]) {
        self.parts.push(Part {
            start: self.end(),
            len: bytes.len() as u32,
            crc: crc32fast::hash(bytes),
        });
    }

    /// Returns the metadata entry of the checksums, with zeros for values that are known only after
    /// the file is written.
    pub(super) fn entry(&self, token: &str) -> KeyValue {
        let mut parts = Vec::with_capacity(self.parts.len() * 7);
        for part in &self.parts {
            put_varint(&mut parts, part.len.into());
            parts.extend_from_slice(&part.crc.to_le_bytes());
        }
        let zeros = "00000000";
        let value = format!("{VERSION};{token};{zeros};{zeros};{zeros};{}", encode64(&parts));
        KeyValue::new(KEY.to_owned(), value)
    }

    /// Returns the parts that lie entirely within a range.
    pub(super) fn within(&self, range: &std::ops::Range<u64>) -> &[Part] {
        let first = self.parts.partition_point(|part| part.start < range.start);
        let end = self.parts.partition_point(|part| part.end() <= range.end);
        self.parts.get(first..end).unwrap_or_default()
    }
}

/// Parsed metadata entry of the checksums.
#[derive(Clone, Debug)]
pub(super) struct Entry {
    pub(super) sums: Sums,
    token: String,
    footer_crc: u32,
}

impl Entry {
    /// Parses an entry. Returns `None` for an unknown version. The error describes the problem.
    pub(super) fn parse(entry: &KeyValue) -> Result<Option<Self>, &'static str> {
        let wrong = "its checksums cannot be read";
        let value = entry.value.as_deref().ok_or(wrong)?;
        let fields: Vec<&str> = value.splitn(6, ';').collect();
        if fields.first() != Some(&VERSION) {
            return Ok(None);
        }
        let [_, token, index_len, index_crc, footer_crc, parts] = fields[..] else {
            return Err(wrong);
        };
        // The digits of the footer's own checksum are in no checksum. One changed bit makes `A` of
        // `a`, so only the form that is written is read.
        let digits = |text: &str| {
            let number = u32::from_str_radix(text, 16).map_err(|_| wrong)?;
            if format!("{number:08x}") == text { Ok(number) } else { Err(wrong) }
        };
        let mut sums = Sums::default();
        let decoded = decode64(parts).ok_or(wrong)?;
        let mut rest = decoded.as_slice();
        while !rest.is_empty() {
            let (len, taken) = varint(rest).ok_or(wrong)?;
            let crc =
                rest.get(taken..taken + 4).and_then(|crc| crc.try_into().ok()).ok_or(wrong)?;
            let start = sums.end();
            let crc = u32::from_le_bytes(crc);
            let len = u32::try_from(len).map_err(|_| wrong)?;
            sums.parts.push(Part { start, len, crc });
            rest = &rest[taken + 4..];
        }
        let start = sums.end();
        let len = digits(index_len)?;
        let crc = digits(index_crc)?;
        sums.parts.extend((len > 0).then_some(Part { start, len, crc }));
        Ok(Some(Self { sums, token: token.to_owned(), footer_crc: digits(footer_crc)? }))
    }

    /// Returns true if the footer matches its checksum. The digits of the checksum itself count as
    /// zeros.
    pub(super) fn footer_holds(&self, footer: &[u8]) -> bool {
        let Some(at) =
            fields_at(footer, &self.token).map(|at| at + 18).filter(|at| at + 8 <= footer.len())
        else {
            return false;
        };
        let mut hasher = crc32fast::Hasher::new();
        hasher.update(&footer[..at]);
        hasher.update(b"00000000");
        hasher.update(&footer[at + 8..]);
        hasher.finalize() == self.footer_crc
    }
}

/// Fills in the values that were unknown before, in the end of a file from its page indexes on.
/// Returns `None` if the entry is missing.
pub(super) fn complete(end: &mut [u8], token: &str) -> Option<()> {
    let footer_bytes = footer_len(end)?;
    let index_bytes = end.len().checked_sub(footer_bytes + TRAILER)?;
    let (index, footer) = end.split_at_mut(index_bytes);
    let footer = &mut footer[..footer_bytes];
    let at = fields_at(footer, token)?;
    let index_fields =
        format!("{:08x};{:08x}", u32::try_from(index.len()).ok()?, crc32fast::hash(index));
    footer.get_mut(at..at + 17)?.copy_from_slice(index_fields.as_bytes());
    let crc = format!("{:08x}", crc32fast::hash(footer));
    footer.get_mut(at + 18..at + 26)?.copy_from_slice(crc.as_bytes());
    Some(())
}

/// Returns the length of the footer from the last bytes of a file.
pub(super) fn footer_len(end: &[u8]) -> Option<usize> {
    let trailer = end.last_chunk::<TRAILER>()?;
    let len = u32::from_le_bytes(*trailer.first_chunk()?) as usize;
    (trailer.ends_with(b"PAR1") && len <= end.len() - TRAILER).then_some(len)
}

/// Returns the offset of the fields after the token.
fn fields_at(footer: &[u8], token: &str) -> Option<usize> {
    let begins = format!("{VERSION};{token};");
    memchr::memmem::find(footer, begins.as_bytes()).map(|at| at + begins.len())
}

/// Encodes bytes in base 64, without padding.
pub(super) fn encode64(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len().div_ceil(3) * 4);
    for three in bytes.chunks(3) {
        let bits = three.iter().fold(0_u32, |bits, byte| bits << 8 | u32::from(*byte))
            << (8 * (3 - three.len()));
        for place in 0..=three.len() {
            text.push(char::from(DIGITS[(bits >> (18 - 6 * place)) as usize & 63]));
        }
    }
    text
}

/// Decodes base 64 without padding. Returns `None` if a character is no digit.
pub(super) fn decode64(text: &str) -> Option<Vec<u8>> {
    let mut bytes = Vec::with_capacity(text.len() * 3 / 4);
    for four in text.as_bytes().chunks(4) {
        let mut bits = 0_u32;
        for digit in four {
            bits = bits << 6 | u32::from(value64(*digit)?);
        }
        bits <<= 6 * (4 - four.len());
        bytes.extend_from_slice(&bits.to_be_bytes()[1..four.len()]);
    }
    Some(bytes)
}

fn value64(digit: u8) -> Option<u8> {
    match digit {
        b'A'..=b'Z' => Some(digit - b'A'),
        b'a'..=b'z' => Some(digit - b'a' + 26),
        b'0'..=b'9' => Some(digit - b'0' + 52),
        b'+' => Some(62),
        b'/' => Some(63),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_come_back_from_their_text() {
        for len in 0..70_u8 {
            let bytes: Vec<u8> = (0..len).map(|byte| byte.wrapping_mul(37)).collect();
            assert_eq!(decode64(&encode64(&bytes)).unwrap(), bytes);
        }
        assert_eq!(decode64("A!"), None);
    }
}
