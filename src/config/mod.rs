//! Configuration: every setting, and the layers that set it.
//!
//! [`Config`] is plain data. `gatelog.toml` overrides the defaults, the environment (`GATELOG_` and
//! the name in capitals) overrides the file, and flags override the environment ([`Layers`]). An
//! unknown key, a value of the wrong type and a value out of range are errors that name the
//! setting; nothing is repaired silently. This module does not read argv, the environment or the
//! disk: callers pass in what they read there.

mod environment;
mod found;
mod layers;
mod memory;
mod plans;
mod redact;
mod renamed;
mod schedule;
mod settings;
mod validate;

pub use found::Found;
pub use layers::{Effective, Layers, Origin};
pub use memory::Share;
pub use plans::{MAX_DAYS, Over, Plan, Plans};
pub use redact::{Path, Redact, Rule, Step};
pub use schedule::Schedule;
pub use settings::{Config, Failures, SETTINGS, Secret, Setting, is_size};
