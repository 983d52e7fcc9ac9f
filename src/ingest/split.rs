//! Splits a stream of bytes into records: lines, a JSON array, or a sequence of objects,
//! pretty-printed or not.
//!
//! The first bytes determine the layout. Lines are the fast path: they are only searched for line
//! breaks, and for a second object on the same line. The other layouts are scanned for strings and
//! brackets, which suffices to find the end of each value. Nothing is validated here; invalid
//! records are refused when they are parsed. Records are numbered from the start of the stream.
//!
//! Memory holds at most one record and one push. The rest of a record over the limit is skipped as
//! it arrives.

use std::io::{self, Read};
use std::ops::Range;

use super::rejection::Rejection;
use crate::record::json::{FieldError, MAX_RECORD_BYTES, next_special, too_large};

/// Complete records of a stream.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Chunk {
    /// Text of the records, including separators.
    pub text: Vec<u8>,
    /// Line of the stream in which the text begins, counted from 1.
    pub line: u64,
    /// Number of each record and its range in the text.
    pub records: Vec<(u64, Range<usize>)>,
    /// Rejections of records that are too large, and of an array without an end.
    pub rejections: Vec<Rejection>,
}

impl Chunk {
    /// Adds a record and counts it, or rejects it if it is too large. `line` is the line where it
    /// begins.
    fn add(
        &mut self,
        number: &mut u64,
        range: Range<usize>,
        limit: usize,
        line: impl FnOnce() -> u64,
    ) {
        if range.len() > limit {
            self.rejections.push(Rejection::new(*number, too_large(limit)).in_line(line()));
        } else {
            self.records.push((*number, range));
        }
        *number += 1;
    }

    /// Returns a counter for the lines of positions in ascending order.
    pub(super) fn lines(&self) -> Lines<'_> {
        Lines { text: &self.text, counted: 0, line: self.line }
    }
}

/// Counts lines up to positions that are requested in ascending order, so that each byte is read
/// once.
pub(super) struct Lines<'a> {
    text: &'a [u8],
    counted: usize,
    line: u64,
}

impl Lines<'_> {
    /// Returns the number of the line of a position.
    pub(super) fn number_at(&mut self, place: usize) -> u64 {
        self.line += line_breaks(self.text.get(self.counted..place).unwrap_or_default());
        self.counted = place.max(self.counted);
        self.line
    }
}

pub(crate) fn line_breaks(text: &[u8]) -> u64 {
    memchr::memchr_iter(b'\n', text).count() as u64
}

/// Finds the records in a stream of bytes.
#[derive(Debug)]
pub struct Splitter {
    /// Bytes that are not in a chunk yet. They begin with the unfinished record.
    buffer: Vec<u8>,
    /// Number of bytes of the buffer that were searched.
    searched: usize,
    /// End of the first line, and the innermost bracket that is open there. `None` until both are
    /// known.
    first_line: Option<(usize, u8)>,
    layout: Layout,
    /// Line in which the buffer begins, counted from 1.
    line: u64,
    /// Number of the next record.
    next: u64,
    /// True if the record at the start of the buffer is over the limit and only its end is searched
    /// for.
    skipping: bool,
    limit: usize,
}

#[derive(Debug)]
enum Layout {
    /// Not known yet.
    Open,
    Lines,
    Values(Values),
}

/// State of the search through JSON values.
#[derive(Debug, Default)]
struct Values {
    /// True within an array of records.
    array: bool,
    /// Start of the current record in the buffer.
    start: Option<usize>,
    depth: usize,
    string: bool,
    escaped: bool,
}

impl Default for Splitter {
    fn default() -> Self {
        Self::new()
    }
}

impl Splitter {
    /// Creates a splitter at the start of a stream, for records of up to [`MAX_RECORD_BYTES`].
    pub fn new() -> Self {
        Self::with_limit(MAX_RECORD_BYTES)
    }

    /// Creates a splitter for records of up to `limit` bytes.
    pub fn with_limit(limit: usize) -> Self {
        Self {
            buffer: Vec::new(),
            searched: 0,
            first_line: None,
            layout: Layout::Open,
            line: 1,
            next: 0,
            skipping: false,
            limit,
        }
    }

    /// Adds the next bytes and returns the records that they complete.
    pub fn push(&mut self, bytes: &[u8]) -> Chunk {
        self.buffer.extend_from_slice(bytes);
        self.split(false)
    }

    /// Reads the next bytes, at most `most`, and returns the records that they complete and the
    /// number of bytes. Fewer than `most` are the end of the reader.
    pub(crate) fn read_from(
        &mut self,
        reader: impl Read,
        most: usize,
    ) -> io::Result<(Chunk, usize)> {
        // The text of a chunk keeps this memory, so it should have no more than it needs. A large
        // record is read in many pieces, which must not copy it each time.
        if self.buffer.len() < most {
            self.buffer.reserve_exact(most);
        }
        let read = reader.take(most as u64).read_to_end(&mut self.buffer)?;
        Ok((self.split(false), read))
    }

    /// Ends the stream and returns the remaining records.
    pub fn finish(&mut self) -> Chunk {
        let mut chunk = self.split(true);
        if let Layout::Values(Values { array: true, .. }) = self.layout {
            let error = FieldError::silent(
                "json",
                "`]` at the end of the array; the request seems to be cut off",
            );
            chunk.rejections.push(Rejection::new(self.next, error).in_line(self.line));
        }
        *self = Self::with_limit(self.limit);
        chunk
    }

    fn split(&mut self, last: bool) -> Chunk {
        if matches!(self.layout, Layout::Open) {
            match self.find_layout(last) {
                Some(layout) => self.layout = layout,
                None if self.buffer.len() > self.limit => self.layout = Layout::Lines,
                None => return Chunk::default(),
            }
            self.searched = 0;
            if self.buffer.starts_with(BYTE_ORDER_MARK) {
                self.buffer.drain(..BYTE_ORDER_MARK.len());
            }
        }
        match self.layout {
            Layout::Values(_) => self.values(last),
            _ => self.lines(last),
        }
    }

    /// Returns the layout of the stream once its first bytes determine it. Reads no byte twice when
    /// more arrive.
    ///
    /// An object whose first line is incomplete is pretty-printed, unless the next bytes cannot
    /// continue it. In that case the first line is invalid, and must not invalidate the others.
    fn find_layout(&mut self, last: bool) -> Option<Layout> {
        let wait = |layout| last.then_some(layout);
        let values = || Layout::Values(Values::default());
        let mark = if self.buffer.starts_with(BYTE_ORDER_MARK) { BYTE_ORDER_MARK.len() } else { 0 };
        let blank = |byte: &u8| byte.is_ascii_whitespace();
        if self.first_line.is_none() && self.searched <= mark {
            let blanks = self.buffer[mark..].iter().take_while(|byte| blank(byte)).count();
            self.buffer.drain(mark..mark + blanks);
        }
        match self.buffer.get(mark) {
            None => return wait(Layout::Lines),
            Some(b'[') => return Some(values()),
            Some(b'{') => {}
            Some(_) if BYTE_ORDER_MARK.starts_with(&self.buffer) => return wait(Layout::Lines),
            Some(_) => return Some(Layout::Lines),
        }
        let (line, open) = match self.first_line {
            Some(found) => found,
            None => {
                let rest = &self.buffer[self.searched..];
                let Some(line) = memchr::memchr(b'\n', rest).map(|at| self.searched + at) else {
                    self.searched = self.buffer.len();
                    return wait(values());
                };
                let Some(open) = open_bracket(&self.buffer[..line]) else {
                    return Some(Layout::Lines);
                };
                self.searched = line;
                *self.first_line.insert((line, open))
            }
        };
        self.searched += self.buffer[self.searched..].iter().take_while(|byte| blank(byte)).count();
        let Some(next) = self.buffer.get(self.searched) else { return wait(values()) };
        let before = self.buffer[..line].trim_ascii_end().last();
        let continues = match next {
            b'{' => before == Some(&b':') || open == b'[' && matches!(before, Some(b'[' | b',')),
            _ => true,
        };
        Some(if continues { values() } else { Layout::Lines })
    }

    fn lines(&mut self, last: bool) -> Chunk {
        let mut chunk = Chunk::default();
        let end = match memchr::memrchr(b'\n', &self.buffer[self.searched..]) {
            _ if last => self.buffer.len(),
            Some(at) => self.searched + at + 1,
            None => {
                self.searched = self.buffer.len();
                self.shed(&mut chunk);
                return chunk;
            }
        };
        let mut at = 0;
        let mut line = Lines { text: &self.buffer, counted: 0, line: self.line };
        while at < end {
            let length = memchr::memchr(b'\n', &self.buffer[at..end]);
            let range = at..length.map_or(end, |length| at + length + 1);
            at = range.end;
            let skipped = std::mem::take(&mut self.skipping);
            let blank = self.buffer[range.clone()].trim_ascii().is_empty();
            if skipped || blank {
                continue;
            }
            // A line over the limit is refused as a whole, as it is when it arrives in pieces and
            // is not held.
            if range.len() > self.limit || !may_hold_several(&self.buffer[range.clone()]) {
                let start = range.start;
                chunk.add(&mut self.next, range, self.limit, || line.number_at(start));
                continue;
            }
            let text = &self.buffer[..range.end];
            let mut place = range.start;
            let mut values = Values::default();
            while let Some(value) = values.next(text, &mut place, true) {
                let start = value.start;
                chunk.add(&mut self.next, value, self.limit, || line.number_at(start));
            }
        }
        self.give(end, &mut chunk);
        chunk
    }

    fn values(&mut self, last: bool) -> Chunk {
        let mut chunk = Chunk::default();
        let Layout::Values(values) = &mut self.layout else { return chunk };
        let mut at = self.searched;
        let mut line = Lines { text: &self.buffer, counted: 0, line: self.line };
        while let Some(range) = values.next(&self.buffer, &mut at, last) {
            if std::mem::take(&mut self.skipping) {
                continue;
            }
            let start = range.start;
            chunk.add(&mut self.next, range, self.limit, || line.number_at(start));
        }
        let start = values.start.unwrap_or(self.buffer.len());
        values.start = values.start.map(|_| 0);
        self.give(start, &mut chunk);
        self.searched = self.buffer.len();
        self.shed(&mut chunk);
        chunk
    }

    /// Moves the text before `end` into the chunk if it has records, and keeps the rest.
    fn give(&mut self, end: usize, chunk: &mut Chunk) {
        if end == 0 {
            return;
        }
        let rest = self.buffer.split_off(end);
        let text = std::mem::replace(&mut self.buffer, rest);
        let breaks = line_breaks(&text);
        if !chunk.records.is_empty() {
            (chunk.text, chunk.line) = (text, self.line);
        }
        self.line += breaks;
        self.searched = self.buffer.len();
    }

    /// Drops an unfinished record that is over the limit.
    fn shed(&mut self, chunk: &mut Chunk) {
        if self.buffer.len() <= self.limit && !self.skipping {
            return;
        }
        if !self.skipping {
            let refused = Rejection::new(self.next, too_large(self.limit));
            chunk.rejections.push(refused.in_line(self.line));
            self.next += 1;
            self.skipping = true;
        }
        self.line += line_breaks(&self.buffer);
        self.buffer.clear();
        self.searched = 0;
    }
}

impl Values {
    /// Returns the next value that ends in the buffer, searched from `at`.
    fn next(&mut self, buffer: &[u8], at: &mut usize, last: bool) -> Option<Range<usize>> {
        while let Some(byte) = buffer.get(*at) {
            if self.string {
                self.through_string(buffer, at);
                continue;
            }
            let here = *at;
            *at += 1;
            let Some(start) = self.start else {
                self.between(*byte, here);
                continue;
            };
            match byte {
                b'"' => self.string = true,
                b'{' | b'[' => self.depth += 1,
                b'}' | b']' if self.depth > 1 => self.depth -= 1,
                b'}' | b']' if self.depth == 1 => return self.end(start, *at),
                // A number or word ends where another token begins, which is then processed.
                b',' | b']' | b'}' | b'\n' if self.depth == 0 => {
                    *at = here.max(start + 1);
                    return self.end(start, *at);
                }
                _ => {}
            }
        }
        let start = self.start.filter(|_| last)?;
        self.end(start, buffer.len())
    }

    /// Processes a byte outside of records.
    fn between(&mut self, byte: u8, here: usize) {
        match byte {
            b' ' | b'\t' | b'\r' | b'\n' | b',' => {}
            b'[' if !self.array => self.array = true,
            b']' if self.array => self.array = false,
            _ => {
                self.start = Some(here);
                self.depth = usize::from(matches!(byte, b'{' | b'['));
                self.string = byte == b'"';
            }
        }
    }

    fn through_string(&mut self, buffer: &[u8], at: &mut usize) {
        if std::mem::take(&mut self.escaped) {
            *at += 1;
            return;
        }
        *at = next_special(buffer, *at);
        match buffer.get(*at) {
            None => return,
            Some(b'"') => self.string = false,
            Some(b'\\') => self.escaped = true,
            Some(_) => {}
        }
        *at += 1;
    }

    fn end(&mut self, start: usize, end: usize) -> Option<Range<usize>> {
        *self = Self { array: self.array, ..Self::default() };
        Some(start..end)
    }
}

/// Returns true if a line begins with an object and has another `{` after a closed bracket. This
/// never occurs within one value outside of strings. Searches for a single byte, since every line
/// is checked.
fn may_hold_several(line: &[u8]) -> bool {
    let closed_before = |at: usize| matches!(line[..at].trim_ascii_end().last(), Some(b'}' | b']'));
    line.trim_ascii_start().starts_with(b"{") && memchr::memchr_iter(b'{', line).any(closed_before)
}

const BYTE_ORDER_MARK: &[u8] = b"\xef\xbb\xbf";

/// Returns the innermost bracket that is open at the end of a line. `None` if all are closed, or if
/// a string is open, since a string cannot contain a line break.
fn open_bracket(line: &[u8]) -> Option<u8> {
    let mut open = Vec::new();
    let mut values = Values::default();
    let mut at = 0;
    while let Some(byte) = line.get(at) {
        if values.string {
            values.through_string(line, &mut at);
            continue;
        }
        match byte {
            b'"' => values.string = true,
            b'{' | b'[' => open.push(*byte),
            b'}' | b']' => drop(open.pop()),
            _ => {}
        }
        at += 1;
    }
    open.pop().filter(|_| !values.string)
}
