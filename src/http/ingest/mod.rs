//! Ingestion of request bodies: the pipeline of records, the splitting of bodies, OTLP exports.

pub(crate) mod chunk_reader;
pub(crate) mod otlp;
pub(crate) mod pipeline;
