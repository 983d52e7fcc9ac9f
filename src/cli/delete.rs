//! `gatelog delete`: erases records and the feedback on them, and stores the request. Works beside
//! a running server.
//!
//! Erased records disappear from answers when the server next reads the catalog, from the files
//! with the next maintenance, and from the disk with the vacuum after that.

use chrono::Utc;
use serde::Serialize;
use uuid::Uuid;

use super::catalog::{CLI, FormArgs, confirm, open, operator, tell};
use super::exit::Done;
use super::progress::thousands;
use super::settings::Context;
use gatelog::engine::Reader;
use gatelog::engine::{Document, ErasureSelector, ErasureView, arrival};
use gatelog::error::Result;
use gatelog::logs::Erasing;

/// Erases the records of an organisation, of one of its users, or with given ids, and the feedback
/// on them
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  gatelog delete --org acme --user amara.o
  gatelog delete --org acme --id 0199f2c4-77aa --id 0199f2c4-77ab --yes
  gatelog delete --org acme --yes --format json      all its records up to now

Each request is stored with its time and author: GET /v1/admin/erasures lists them. An erasure of a user, or of the \
whole organisation, covers the records created up to now; later ones stay. To delete an organisation itself, use \
`gatelog org delete`.")]
pub(super) struct Args {
    /// Organisation whose records are erased
    #[arg(long = "org", visible_alias = "organisation", value_name = "ID")]
    organisation: String,
    /// Only records of this end user: their `user_id`, which is `_user` of the metadata
    #[arg(long, conflicts_with = "ids")]
    user: Option<String>,
    /// Only the record or feedback with this id; can be given several times
    #[arg(long = "id", value_name = "RECORD")]
    ids: Vec<String>,
    /// Skips the confirmation
    #[arg(long)]
    yes: bool,
    #[command(flatten)]
    form: FormArgs,
}

#[derive(Serialize)]
struct Erased {
    /// Records visible to this node that are erased now.
    found: u64,
    /// Feedback visible to this node that is erased now.
    found_feedback: u64,
    #[serde(flatten)]
    entry: ErasureView,
}

pub(super) async fn run(context: Context, args: Args) -> Result<Done> {
    let Args { organisation, user, ids, yes, form } = args;
    let which = match (user, ids.is_empty()) {
        (Some(user), _) => ErasureSelector::User(user),
        (None, true) => ErasureSelector::All,
        (None, false) => ErasureSelector::Ids(ids),
    };
    let catalog = open(&context, false).await?;
    let Erasing { records, feedback, .. } =
        Reader::open(context.config()).await?.erasing(&organisation, &which).await?;
    let what = format!("{} of organisation `{organisation}`", words(&which));
    let found = format!("{} records and {} feedback", thousands(records), thousands(feedback));
    confirm(yes, &format!("Erasing {what} ({found})"), &organisation)?;
    // Includes records that arrived during the confirmation.
    let tied = Reader::open(context.config()).await?.erasing(&organisation, &which).await?.tied;
    let id = Uuid::now_v7().to_string();
    let now = Utc::now();
    let erase = |document: &mut Document| {
        let entry = document.erase(&id, &organisation, which.clone(), CLI, now)?;
        entry.feedback.clone_from(&tied);
        // A running server has rows in memory until it sees this change.
        entry.arrived_ms = arrival(now);
        Ok(entry.shown())
    };
    let entry = catalog.change(erase).await?;
    let remark = match records + feedback {
        0 => format!("; {}", nothing_matches(&catalog.state().document, &organisation)),
        _ => String::new(),
    };
    let words = format!("{found} erased: {what}; {}{remark}", what_follows(&context));
    tell(
        &context,
        form.format,
        &Erased { found: records, found_feedback: feedback, entry },
        &words,
    )?;
    Ok(Done::Success)
}

/// Describes what happens after the change of the catalog.
pub(super) fn what_follows(context: &Context) -> String {
    format!(
        "a running server hides the records within {} s and removes them with its next maintenance; without a server, the \
         next start or `gatelog maintain expire` removes them",
        context.config().refresh_seconds
    )
}

/// Returns a hint for an erasure that matched nothing. The organisation need not be in the catalog.
fn nothing_matches(document: &Document, organisation: &str) -> String {
    let unknown = document.known_organisation(organisation, &operator()).err();
    let hint = unknown.map_or_else(String::new, |error| format!(": {error}"));
    format!("nothing matches now; check the names{hint}")
}

fn words(which: &ErasureSelector) -> String {
    match which {
        ErasureSelector::All => "all records".to_owned(),
        ErasureSelector::User(user) => format!("records of user `{user}`"),
        ErasureSelector::Ids(ids) => format!("records with {} ids", ids.len()),
    }
}
