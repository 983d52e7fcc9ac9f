//! Records that arrive in parts: the kinds of parts, how parts are joined, and the parts that wait
//! for others.

mod bytes;
mod join;
mod join_buffer;
mod late;

pub use join::{RecordPart, has_outcome, join};
#[cfg(test)]
pub use join::{join_all, unite};
pub use join_buffer::{Admission, JoinBuffer, Joined, SoFar, has_content};
pub use late::{Late, LatePart, amend};
