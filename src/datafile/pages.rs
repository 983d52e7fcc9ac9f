//! Pages of a row group during encoding, each with the CRC-32 of its bytes in its header.
//!
//! The Parquet writer omits that field and offers no way to set it. So the pages are collected
//! here, the field is added to their headers, and each column is passed on with the resulting sizes
//! and offsets.

use std::sync::Arc;

use bytes::Bytes;
use parking_lot::Mutex;
use parquet::arrow::arrow_writer::{
    ArrowColumnChunk, PageKey, PageStore, PageStoreArgs, PageStoreFactory,
};
use parquet::column::writer::ColumnCloseResult;
use parquet::errors::{ParquetError, Result};

use super::sums::Sums;
use super::varint::{put_varint, varint};

/// Type of a dictionary page in the page header.
const DICTIONARY: u64 = 4;
/// Header byte of an i32 field whose number is one above that of the preceding field.
const NEXT_I32: u8 = 0x15;

/// A page as written to the file.
#[derive(Debug)]
struct Page {
    header: Bytes,
    data: Bytes,
    is_dictionary: bool,
    /// Bytes by which the header grew.
    gained: usize,
}

impl Page {
    fn len(&self) -> usize {
        self.header.len() + self.data.len()
    }
}

/// Pages of one column of a row group, in the order in which they were finished.
#[derive(Debug, Default)]
struct Column {
    /// Header whose data follows next.
    header: Option<Bytes>,
    pages: Vec<Page>,
}

/// Pages of the columns of a row group, by column index.
#[derive(Debug, Default)]
pub(super) struct Pages(Mutex<Vec<Arc<Mutex<Column>>>>);

impl Pages {
    /// Ends a column. Returns its bytes and its metadata, and records a checksum of each page.
    pub(super) fn end_column(
        &self,
        place: usize,
        mut chunk: ArrowColumnChunk,
        sums: &mut Sums,
    ) -> Result<(Bytes, ColumnCloseResult)> {
        let column =
            self.0.lock().get(place).cloned().ok_or_else(|| wrong("a column has no pages"))?;
        let pages = std::mem::take(&mut column.lock().pages);
        let bloom_filter = chunk.close_mut().bloom_filter.take();
        let close = moved(ColumnCloseResult { bloom_filter, ..chunk.close().clone() }, &pages)?;
        let mut bytes = Vec::with_capacity(pages.iter().map(Page::len).sum());
        // The dictionary is finished last and must be written first.
        let (first, then): (Vec<_>, Vec<_>) =
            pages.into_iter().partition(|page| page.is_dictionary);
        for page in first.into_iter().chain(then) {
            let start = bytes.len();
            bytes.extend_from_slice(&page.header);
            bytes.extend_from_slice(&page.data);
            sums.add(&bytes[start..]);
        }
        Ok((bytes.into(), close))
    }

    /// Discards the columns of a finished row group.
    pub(super) fn clear(&self) {
        self.0.lock().clear();
    }
}

/// Adjusts the metadata of a column to its larger pages and to the dictionary at its start.
fn moved(mut close: ColumnCloseResult, pages: &[Page]) -> Result<ColumnCloseResult> {
    let gained: usize = pages.iter().map(|page| page.gained).sum();
    let dictionary: usize = pages.iter().filter(|page| page.is_dictionary).map(Page::len).sum();
    close.bytes_written += gained as u64;
    let metadata = close.metadata;
    let compressed = metadata.compressed_size();
    let uncompressed = metadata.uncompressed_size();
    close.metadata = metadata
        .into_builder()
        .set_total_compressed_size(compressed + gained as i64)
        .set_total_uncompressed_size(uncompressed + gained as i64)
        .set_dictionary_page_offset((dictionary > 0).then_some(0))
        .set_data_page_offset(dictionary as i64)
        .build()?;
    if let Some(index) = &mut close.offset_index {
        let data = pages.iter().filter(|page| !page.is_dictionary);
        let mut offset = dictionary;
        for (location, page) in index.page_locations.iter_mut().zip(data) {
            location.offset = offset as i64;
            location.compressed_page_size =
                i32::try_from(page.len()).map_err(|_| wrong("a page is too large"))?;
            offset += page.len();
        }
    }
    Ok(close)
}

/// Creates the page stores of columns, which [`Pages`] can read.
#[derive(Debug)]
pub(super) struct Factory(pub(super) Arc<Pages>);

impl PageStoreFactory for Factory {
    fn create(&self, args: &PageStoreArgs<'_>) -> Result<Box<dyn PageStore>> {
        let mut columns = self.0.0.lock();
        if columns.len() != args.column_index() {
            return Err(wrong("columns are written out of order"));
        }
        let column = Arc::default();
        columns.push(Arc::clone(&column));
        Ok(Box::new(Store(column)))
    }
}

struct Store(Arc<Mutex<Column>>);

impl PageStore for Store {
    fn put(&mut self, value: Bytes) -> Result<PageKey> {
        let mut column = self.0.lock();
        match column.header.take() {
            // Headers and data alternate.
            None => column.header = Some(value),
            Some(header) => {
                let (with_crc, is_dictionary) = with_crc(&header, crc32fast::hash(&value))?;
                let gained = with_crc.len() - header.len();
                column.pages.push(Page {
                    header: with_crc.into(),
                    data: value,
                    is_dictionary,
                    gained,
                });
            }
        }
        Ok(PageKey::new(column.pages.len() as u64))
    }

    fn take(&mut self, _key: PageKey) -> Result<Bytes> {
        Err(wrong("pages are taken together"))
    }

    fn memory_size(&self) -> usize {
        let column = self.0.lock();
        column.pages.iter().map(Page::len).sum::<usize>()
            + column.header.as_ref().map_or(0, Bytes::len)
    }
}

/// Adds the field `crc` to a page header, which is a struct of Thrift's compact protocol. Type,
/// uncompressed size and compressed size are fields 1 to 3, and the checksum is field 4. The next
/// field stores the distance of its number from the preceding field. Also returns true if the
/// header is that of a dictionary.
fn with_crc(header: &[u8], crc: u32) -> Result<(Vec<u8>, bool)> {
    let mut at = 0;
    let mut kind = 0;
    for field in 1..=3 {
        if header.get(at) != Some(&NEXT_I32) {
            return Err(wrong("a page's header has an unexpected layout"));
        }
        let (value, len) =
            varint(&header[at + 1..]).ok_or_else(|| wrong("a page's header is cut short"))?;
        kind = if field == 1 { value } else { kind };
        at += 1 + len;
    }
    let next = header.get(at).copied().filter(|next| next >> 4 >= 2);
    let next = next.ok_or_else(|| wrong("a page's header already has a checksum"))?;
    let mut out = Vec::with_capacity(header.len() + 6);
    out.extend_from_slice(&header[..at]);
    out.push(NEXT_I32);
    let crc = i64::from(crc.cast_signed());
    put_varint(&mut out, ((crc << 1) ^ (crc >> 63)).cast_unsigned());
    out.push(next - 0x10);
    out.extend_from_slice(&header[at + 1..]);
    Ok((out, kind == DICTIONARY))
}

fn wrong(what: &str) -> ParquetError {
    ParquetError::General(what.to_owned())
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// Returns type, checksum and length of the header at the start of a page.
    pub(in crate::datafile) fn header(page: &[u8]) -> (u64, u32, usize) {
        let mut at = 0;
        let mut fields = Vec::new();
        for _ in 0..4 {
            assert_eq!(page[at], NEXT_I32);
            let (value, len) = varint(&page[at + 1..]).unwrap();
            fields.push((value >> 1).cast_signed() ^ -((value & 1).cast_signed()));
            at += 1 + len;
        }
        // The header is the rest of the page beyond the compressed size.
        (
            fields[0].cast_unsigned(),
            (fields[3] as i32).cast_unsigned(),
            page.len() - fields[2] as usize,
        )
    }

    #[test]
    fn a_header_that_is_not_as_expected_is_an_error() {
        let header = [0x15, 0x00, 0x15, 0x14, 0x15, 0x12, 0x2c, 0x15, 0x08];
        let (with, is_dictionary) = with_crc(&header, 0xffff_fffe).unwrap();
        assert_eq!(
            (with.as_slice(), is_dictionary),
            (&[0x15, 0, 0x15, 0x14, 0x15, 0x12, 0x15, 3, 0x1c, 0x15, 8][..], false)
        );
        assert!(
            with_crc(&with, 1).is_err()
                && with_crc(&header[..5], 1).is_err()
                && with_crc(&[0x18], 1).is_err()
        );
    }
}
