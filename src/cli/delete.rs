//! `gatelog delete`: erases records on request, also beside a running server, and writes down what was asked for.
//!
//! What is erased leaves answers with the server's next look at the catalog, files with the next upkeep, and the disk with the
//! vacuum after that.

use arrow::array::AsArray;
use arrow::datatypes::Int64Type;
use chrono::Utc;
use futures::TryStreamExt;
use serde::Serialize;
use serde_json::Value;
use uuid::Uuid;

use super::catalog::{CLI, FormArgs, confirm, open, tell};
use super::exit::Done;
use super::progress::thousands;
use super::settings::Context;
use crate::catalog::{Document, ShownErasure, Which};
use crate::engine::{Params, Reader};
use crate::error::{Error, Result};

/// Erases an organisation's records, or those of one of its users, or some by id, as privacy requests ask for
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  gatelog delete --organisation acme --user amara.o
  gatelog delete --organisation acme --id 0199f2c4-77aa --id 0199f2c4-77ab --yes
  gatelog delete --organisation acme --yes --format json      all that it has now

What was asked for, when and by whom is written down: GET /v1/admin/erasures lists it. Records of a user, or of the \
whole organisation, are those created up to now; later ones stay. To end an organisation use `gatelog org delete`.")]
pub(super) struct Args {
    /// The organisation whose records are erased
    #[arg(long, value_name = "ID")]
    organisation: String,
    /// Only records of this end user: their `user_id`, which is `_user` of the metadata
    #[arg(long, conflicts_with = "ids")]
    user: Option<String>,
    /// Only records of this id; may be given several times
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
    let found = count(&context, &organisation, &which).await?;
    let what = format!("{} of organisation `{organisation}`", words(&which));
    confirm(yes, &format!("Erasing {} records, {what},", thousands(found)), &organisation)?;
    let (id, now) = (Uuid::now_v7().to_string(), Utc::now());
    let erase = |document: &mut Document| Ok(document.erase(&id, &organisation, which.clone(), CLI, now)?.shown());
    let entry = catalog.change(erase).await?;
    let remark = if found == 0 { "; no record matches now: are the names right?" } else { "" };
    let words = format!("{} records erased: {what}; {}{remark}", thousands(found), what_follows(&context));
    tell(&context, form.format, &Erased { found, entry }, &words)?;
    Ok(Done::Fine)
}

/// What happens after the catalog was changed.
pub(super) fn what_follows(context: &Context) -> String {
    format!(
        "a running server hides the records within {} s and removes them with its next upkeep; without a server the next \
         start or `gatelog maintain expire` does",
        context.config().refresh_seconds
    )
}

fn words(which: &Which) -> String {
    match which {
        Which::All => "all that there are".to_owned(),
        Which::User(user) => format!("those of user `{user}`"),
        Which::Ids(ids) => format!("those of {} ids", ids.len()),
    }
}

/// Records that are in answers now and will not be.
async fn count(context: &Context, organisation: &str, which: &Which) -> Result<u64> {
    let mut params = Params::from([("organisation".to_owned(), Value::from(organisation))]);
    let condition = match which {
        Which::All => String::new(),
        Which::User(user) => {
            params.insert("user".to_owned(), Value::from(user.as_str()));
            " and user_id = $user".to_owned()
        }
        Which::Ids(ids) => {
            params.extend(ids.iter().zip(0..).map(|(id, place)| (format!("id{place}"), Value::from(id.as_str()))));
            let places: Vec<String> = (0..ids.len()).map(|place| format!("$id{place}")).collect();
            format!(" and id in ({})", places.join(", "))
        }
    };
    let query = format!("select count(*) from logs where organisation_id = $organisation{condition}");
    let reader = Reader::open(context.config()).await?;
    let batches: Vec<_> = reader.sql(&query, &params).await?.batches.try_collect().await?;
    let counted = batches.iter().find(|batch| batch.num_rows() > 0);
    let counted = counted.map(|batch| batch.column(0).as_primitive::<Int64Type>().value(0));
    u64::try_from(counted.unwrap_or(0)).map_err(|cause| Error::internal("a count is negative").with_source(cause))
}
