//! Readers of the columns from JSON, which are generated from the table of columns.

use super::value::Expected;
use crate::record::message::Message;

/// Reader of a column of rows `R`.
pub(crate) enum Reader<R> {
    /// Reads the raw text of the value.
    Value(fn(&mut R, &str) -> Result<(), Expected>),
    /// Reads the value member by member, so that its bodies are scanned once.
    Message(fn(&mut R) -> &mut Message),
}

macro_rules! reader {
    ($name:ident: Message) => {
        $crate::record::json::reader::Reader::Message(|record| &mut record.$name)
    };
    ($name:ident: $kind:ident) => {
        $crate::record::json::reader::Reader::Value(|record, raw| {
            $crate::record::json::value::Read::read(&mut record.$name, stringify!($name), raw)
        })
    };
}
pub(in crate::record) use reader;

macro_rules! fields {
    ($($name:ident: $kind:ident;)*) => {
        /// Readers of each column's JSON value into a [`Record`], in the order of the table.
        pub(crate) const READERS: &[reader::Reader<Record>] =
            &[$(reader::reader!($name: $kind)),*];
    };
}
pub(in crate::record) use fields;
