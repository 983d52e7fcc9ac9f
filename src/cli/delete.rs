//! `gatelog delete`: erases records and the feedback on them on request, also beside a running server, and writes down what was asked for.
//!
//! Erased records leave answers with the server's next look at the catalog, files with the next upkeep, and the disk with the
//! vacuum after that.

use chrono::Utc;
use serde::Serialize;
use uuid::Uuid;

use super::catalog::{CLI, FormArgs, confirm, open, operator, tell};
use super::exit::Done;
use super::progress::thousands;
use super::settings::Context;
use crate::catalog::{Document, ShownErasure, Which, arrival};
use crate::engine::Reader;
use crate::error::Result;
use crate::logs::Erasing;

/// Erases an organisation's records, or those of one of its users, or some by id, with the feedback on them
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  gatelog delete --org acme --user amara.o
  gatelog delete --org acme --id 0199f2c4-77aa --id 0199f2c4-77ab --yes
  gatelog delete --org acme --yes --format json      all that it has now

What was asked for, when and by whom is written down: GET /v1/admin/erasures lists it. Records of a user, or of the \
whole organisation, are those created up to now; later ones stay. To end an organisation use `gatelog org delete`.")]
pub(super) struct Args {
    /// The organisation whose records are erased
    #[arg(long = "org", visible_alias = "organisation", value_name = "ID")]
    organisation: String,
    /// Only records of this end user: their `user_id`, which is `_user` of the metadata
    #[arg(long, conflicts_with = "ids")]
    user: Option<String>,
    /// Only records, or feedback, of this id; may be given several times
    #[arg(long = "id", value_name = "RECORD")]
    ids: Vec<String>,
    /// Does not ask
    #[arg(long)]
    yes: bool,
    #[command(flatten)]
    form: FormArgs,
}

#[derive(Serialize)]
struct Erased {
    /// Records that this node saw and that are erased now.
    found: u64,
    /// The same of feedback.
    found_feedback: u64,
    #[serde(flatten)]
    entry: ShownErasure,
}

pub(super) async fn run(context: Context, args: Args) -> Result<Done> {
    let Args { organisation, user, ids, yes, form } = args;
    let which = match (user, ids.is_empty()) {
        (Some(user), _) => Which::User(user),
        (None, true) => Which::All,
        (None, false) => Which::Ids(ids),
    };
    let catalog = open(&context, false).await?;
    let Erasing { records, feedback, .. } =
        Reader::open(context.config()).await?.erasing(&organisation, &which).await?;
    let what = format!("{} of organisation `{organisation}`", words(&which));
    let found = format!("{} records and {} feedback", thousands(records), thousands(feedback));
    confirm(yes, &format!("Erasing {found}, {what},"), &organisation)?;
    // With what came while somebody thought about it.
    let tied = Reader::open(context.config()).await?.erasing(&organisation, &which).await?.tied;
    let id = Uuid::now_v7().to_string();
    let now = Utc::now();
    let erase = |document: &mut Document| {
        let entry = document.erase(&id, &organisation, which.clone(), CLI, now)?;
        entry.feedback.clone_from(&tied);
        // A running server has rows in memory until it learns of this.
        entry.arrived_ms = arrival(now);
        Ok(entry.shown())
    };
    let entry = catalog.change(erase).await?;
    let remark = match records + feedback {
        0 => format!("; {}", nothing_matches(&catalog.state().document, &organisation)),
        _ => String::new(),
    };
    let words = format!("{found} erased: {what}; {}{remark}", what_follows(&context));
    tell(&context, form.format, &Erased { found: records, found_feedback: feedback, entry }, &words)?;
    Ok(Done::Fine)
}

/// Tells what happens after the catalog was changed.
pub(super) fn what_follows(context: &Context) -> String {
    format!(
        "a running server hides the records within {} s and removes them with its next upkeep; without a server the next \
         start or `gatelog maintain expire` does",
        context.config().refresh_seconds
    )
}

/// Tells what to look at where an erasure found nothing. The organisation need not be in the catalog.
fn nothing_matches(document: &Document, organisation: &str) -> String {
    let unknown = document.known_organisation(organisation, &operator()).err();
    let hint = unknown.map_or_else(String::new, |error| format!(" {error}"));
    format!("nothing matches now: are the names right?{hint}")
}

fn words(which: &Which) -> String {
    match which {
        Which::All => "all that there are".to_owned(),
        Which::User(user) => format!("those of user `{user}`"),
        Which::Ids(ids) => format!("those of {} ids", ids.len()),
    }
}
