//! Records that arrive in parts: the kinds of parts, how parts are joined, and the parts that wait
//! for others.

mod bytes;
mod join;
mod join_buffer;
mod late;

pub use join::RecordPart;
pub(crate) use join::{has_outcome, join};
#[cfg(test)]
pub(crate) use join::{join_all, unite};
pub(crate) use join_buffer::{Admission, JoinBuffer, Joined, SoFar, has_content};
pub(crate) use late::{Late, LatePart, amend};
