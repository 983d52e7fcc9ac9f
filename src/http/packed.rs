//! Reads and decompresses whole bodies within a memory reservation.

use std::io::{self, Read};
use std::time::Duration;

use axum::body::Body;

use crate::catalog::Access;
use crate::http::body::{self, Growing, check_packing, grow, too_large, unpack};
use crate::http::error::Failure;
use crate::http::state::App;
use crate::ingest::pipeline::is_packed;
use crate::limits::MemoryReservation;

/// Step in which memory for decompressed bytes is reserved.
const PIECE_BYTES: usize = 256 << 10;
/// Maximum bytes of a body beyond those of the largest record.
const ENVELOPE_BYTES: u64 = 1 << 20;
/// Memory of a body, the piece that is being split and its parsed records, as a multiple of the
/// body's size.
pub(crate) const TIMES: usize = 3;

/// Reads a whole body, decompresses it and reserves memory for it and its records. Fails if it
/// cannot be decompressed.
pub(crate) async fn packed(
    app: &App,
    access: &Access,
    body: Body,
) -> Result<io::Result<(Vec<u8>, MemoryReservation)>, Failure> {
    let limit =
        usize::try_from(app.engine.config().max_record_bytes.saturating_add(ENVELOPE_BYTES))
            .unwrap_or(usize::MAX);
    let mut room = app.room(access);
    let growing = Growing { room: &mut room, times: TIMES, wait: Duration::ZERO };
    let bytes = body::read(body, limit, Some(growing)).await?;
    unpacked(app, bytes, limit, TIMES, room).await
}

/// Decompresses a body, or returns plain bytes unchanged, and reserves memory of `times` its size.
/// Fails if it cannot be decompressed.
pub(crate) async fn unpacked(
    app: &App,
    bytes: Vec<u8>,
    limit: usize,
    times: usize,
    mut room: MemoryReservation,
) -> Result<io::Result<(Vec<u8>, MemoryReservation)>, Failure> {
    if !is_packed(&bytes) {
        return Ok(Ok((bytes, room)));
    }
    let holder = room.holder().clone();
    let unpacking = move || {
        let text = unpack_within(&bytes, limit, times, &mut room)?;
        Ok(text.map(|text| (text, room)))
    };
    app.engine.heavy().run(&holder, unpacking).await?
}

fn unpack_within(
    packed: &[u8],
    limit: usize,
    times: usize,
    room: &mut MemoryReservation,
) -> Result<io::Result<Vec<u8>>, Failure> {
    let mut plain = match unpack(packed) {
        Ok(plain) => plain,
        Err(cause) => return Ok(Err(cause)),
    };
    let mut text = Vec::new();
    loop {
        match plain.by_ref().take(PIECE_BYTES as u64).read_to_end(&mut text) {
            Ok(0) => return Ok(Ok(text)),
            Ok(_) if text.len() > limit => return Err(too_large(limit)),
            Ok(_) if check_packing(packed.len() as u64, text.len() as u64).is_err() => {
                return Ok(check_packing(packed.len() as u64, text.len() as u64).map(|()| text));
            }
            // The compressed bytes are dropped before the text is parsed, so no body within the
            // limit needs more memory than an uncompressed one.
            Ok(_) => grow(room, (packed.len() + text.len()).max(times * text.len()) as u64)?,
            Err(cause) => return Ok(Err(cause)),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;
    use crate::limits::{Holder, Pool, Share};

    fn gzip(size: usize, level: u32) -> Vec<u8> {
        let mut packed = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::new(level));
        packed.write_all(&vec![b' '; size]).unwrap();
        packed.finish().unwrap()
    }

    #[test]
    fn a_packed_body_is_judged_as_the_plain_one() {
        // As on the routes of the control plane, the whole budget is enough for one plain body.
        let limit = 1 << 20;
        let times = 2;
        let pool = Pool::new((times * limit) as u64, Share::Half);
        let holder = Holder::Operator;
        let unpack = |packed: &[u8]| {
            unpack_within(packed, limit, times, &mut pool.room(&holder)).map(Result::unwrap)
        };
        for (size, level) in [(limit, 9), (limit - (4 << 10), 0), (0, 9)] {
            assert_eq!(
                unpack(&gzip(size, level)).unwrap().len(),
                size,
                "{size} bytes at level {level}"
            );
        }
        let refused = |packed: &[u8]| unpack(packed).unwrap_err().status().as_u16();
        assert_eq!(refused(&gzip(limit + 1, 9)), 413);
        assert_eq!(refused(&gzip(64 * limit, 9)), 413, "a bomb");
        let _other = pool.try_take(&holder, limit as u64).unwrap();
        assert_eq!(refused(&gzip(limit, 9)), 429, "there will be room for it");
    }
}
