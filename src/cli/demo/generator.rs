//! Generates the sample records: the calls, their routes through the gateway, and their results.
//!
//! The same seed, count, days and end give the same records, ordered by time. Calls follow the
//! hours of a working week. A conversation sends its history again with each turn. During one
//! period one provider has an incident, so that there are retries and fallbacks to see. The plan is
//! the only source of time and randomness.

use std::collections::{BTreeMap, HashMap};

use chrono::{DateTime, Duration, SubsecRound, Timelike, Utc, Weekday};
use rand::rngs::SmallRng;
use rand::seq::IndexedRandom;
use rand::{Rng, SeedableRng};
use uuid::Uuid;

use super::applications::{APPS, App, Cache, EMBED, Kind, Model};
use super::bodies::{self, Message, Usage};
use super::gateway::{Provider, Sent, Target, targets};
use super::plan::Plan;
use super::words::{NAMES, PASSAGES};
use gatelog::record::{Message as Sides, Record};

/// Lifetime of answers in the gateway's caches.
const CACHE_MINUTES: i64 = 75;

/// Generates the records of a plan.
#[derive(Debug)]
pub(super) struct Generator {
    plan: Plan,
    rng: SmallRng,
    hours: Hours,
    provider: Provider,
    /// API key of each application.
    keys: Vec<String>,
    /// Content of the gateway's caches: application and question, mapped to the answer and its
    /// time.
    cached: HashMap<(usize, String), (String, DateTime<Utc>)>,
    /// Generated records that wait for earlier ones.
    waiting: BTreeMap<(DateTime<Utc>, u64), Record>,
    made: u64,
    /// Start of the next conversation. Records before it are final.
    next_start: DateTime<Utc>,
}

/// The user, application and topic of a conversation.
struct Visit {
    app: usize,
    user: String,
    paid: bool,
    environment: &'static str,
    trace: String,
    untracked: bool,
    /// First question, if it is fixed.
    asks: Option<String>,
    /// Word of each list in this conversation.
    words: Vec<(&'static str, &'static str)>,
    messages: Vec<Message>,
}

/// Question of a turn, and the time at which its answer was complete.
struct Turn {
    question: String,
    end: DateTime<Utc>,
}

/// Position of a call within its trace.
struct Span {
    name: &'static str,
    parent: Option<String>,
}

impl Generator {
    pub(super) fn new(plan: Plan) -> Self {
        let mut rng = SmallRng::seed_from_u64(plan.seed);
        let hours = Hours::new(plan);
        let provider = Provider::new(plan, &mut rng);
        let mut by_workspace: HashMap<(&str, &str), String> = HashMap::new();
        let keys = APPS
            .iter()
            .map(|app| {
                by_workspace
                    .entry((app.organisation, app.workspace))
                    .or_insert_with(|| uuid(&mut rng))
                    .clone()
            })
            .collect();
        let next_start = hours.at(0.0);
        let cached = HashMap::new();
        let waiting = BTreeMap::new();
        Self { plan, rng, hours, provider, keys, cached, waiting, made: 0, next_start }
    }

    /// Generates one visit: a conversation, a retrieval or an indexing run.
    fn visit(&mut self) {
        let weights: u32 = APPS.iter().map(|app| app.weight).sum();
        let mut draw = self.rng.random_range(0..weights);
        let app = APPS.iter().position(|app| {
            let found = draw < app.weight;
            draw = draw.saturating_sub(app.weight);
            found
        });
        let mut visit = self.visitor(app.unwrap_or(0));
        let mut at = self.next_start;
        match APPS[visit.app].kind {
            Kind::Embedding => {
                for _ in 0..self.rng.random_range(1..=4) {
                    self.embed(&visit, at, Span { name: "llm", parent: None });
                    at += Duration::milliseconds(self.rng.random_range(150..900));
                }
            }
            Kind::Lookup => {
                let root = uuid(&mut self.rng);
                self.embed(&visit, at, Span { name: "retrieve", parent: Some(root.clone()) });
                at += Duration::milliseconds(self.rng.random_range(120..400));
                self.chat(&mut visit, at, Span { name: "answer", parent: Some(root) });
            }
            Kind::Chat { goes_on } => loop {
                let turn = self.chat(&mut visit, at, Span { name: "llm", parent: None });
                at = turn.end + Duration::milliseconds(self.rng.random_range(12_000..200_000));
                if at >= self.plan.end
                    || visit.messages.len() > 15
                    || !self.rng.random_bool(goes_on)
                {
                    break;
                }
            },
            Kind::Questions => loop {
                let turn = self.chat(&mut visit, at, Span { name: "llm", parent: None });
                // Several users ask the same question, which makes cache hits.
                at += Duration::milliseconds(self.rng.random_range(2_000..400_000));
                if at >= self.plan.end || !self.rng.random_bool(0.3) {
                    break;
                }
                visit = Visit { asks: Some(turn.question), ..self.visitor(visit.app) };
            },
        }
        let share = self.made as f64 + self.rng.random::<f64>();
        self.next_start = self.hours.at(share / self.plan.records as f64).max(self.next_start);
    }

    fn visitor(&mut self, app: usize) -> Visit {
        let App { users, theme, untracked, .. } = APPS[app];
        let rng = &mut self.rng;
        // Squared, so that a few users make many of the calls.
        let number = (f64::from(users) * rng.random::<f64>().powi(2)) as usize;
        let letter = char::from(b'a' + (number / NAMES.len() % 26) as u8);
        let more = number / (NAMES.len() * 26);
        let more = if more == 0 { String::new() } else { more.to_string() };
        let words = theme
            .lists
            .iter()
            .filter_map(|(list, words)| Some((*list, *words.choose(rng)?)))
            .collect();
        Visit {
            app,
            user: format!("{}.{letter}{more}", NAMES[number % NAMES.len()]),
            paid: number.is_multiple_of(3),
            environment: if rng.random_bool(0.9) { "production" } else { "staging" },
            trace: uuid(rng),
            untracked: rng.random_bool(untracked),
            asks: None,
            words,
            messages: vec![Message::new("system", theme.system)],
        }
    }

    /// Generates one turn of a conversation.
    fn chat(&mut self, visit: &mut Visit, at: DateTime<Utc>, span: Span) -> Turn {
        let app = &APPS[visit.app];
        let patterns =
            if visit.messages.len() == 1 { app.theme.openers } else { app.theme.follow_ups };
        let open = patterns.choose(&mut self.rng).copied().unwrap_or_default();
        let question = visit.asks.take().unwrap_or_else(|| fill(open, &visit.words));
        visit.messages.push(Message::new("user", question.as_str()));
        let (cache_status, known) = self.look_up(visit.app, &question, at);
        let is_hit = known.is_some();
        let answer = known.unwrap_or_else(|| self.answer(visit));
        let streamed = self.rng.random_bool(app.streamed);
        let tokens = |text: &str| text.chars().count() as i64 / 4 + 1;
        let asked = visit.messages.iter().map(|message| tokens(&message.content) + 4).sum();
        let usage = Usage::new(asked, tokens(&answer));
        let call = uuid(&mut self.rng);
        let mut row = self.row(visit, &call, span);
        row.request_method = Some("POST".to_owned());
        row.cache_status = Some(cache_status.to_owned());
        row.cache_type = match app.cache {
            Cache::Off => None,
            Cache::Simple => Some("SIMPLE".to_owned()),
            Cache::Semantic => Some("SEMANTIC".to_owned()),
        };
        row.stream_mode = Some(streamed);
        let sent = self.send(app, visit.paid, at, usage, streamed, is_hit);
        let answered = sent.last().is_some_and(|(_, outcome)| outcome.is_success());
        let end = sent.last().map_or(at, |(_, outcome)| outcome.end());
        for (target, outcome) in sent {
            let model = target.model;
            let mut row = row.clone();
            if !visit.untracked {
                row.request.body =
                    Some(bodies::chat_request(model.name, &visit.messages, 0.2, streamed));
                row.response.body = Some(if outcome.is_success() {
                    bodies::chat_response(
                        &call[..8],
                        outcome.at.timestamp(),
                        model.name,
                        &answer,
                        usage,
                    )
                } else {
                    bodies::failure(model.provider, model.name, outcome.status)
                });
            }
            self.push(row, visit, &target, &outcome, usage);
        }
        if !answered {
            // The user asks another question next. The question without an answer is not part of
            // the history.
            visit.messages.pop();
            return Turn { question, end };
        }
        visit.messages.push(Message::new("assistant", answer.as_str()));
        if app.cache != Cache::Off && !is_hit {
            self.cached.insert((visit.app, question.clone()), (answer, at));
        }
        Turn { question, end }
    }

    /// Generates one embedding call.
    fn embed(&mut self, visit: &Visit, at: DateTime<Utc>, span: Span) {
        let many = if span.parent.is_some() { 1 } else { self.rng.random_range(1..=4) };
        let inputs: Vec<&str> = PASSAGES.choose_multiple(&mut self.rng, many).copied().collect();
        let usage = Usage::new(inputs.iter().map(|text| text.len() as i64 / 4 + 1).sum(), 0);
        let call = uuid(&mut self.rng);
        let mut row = self.row(visit, &call, span);
        row.cache_status = Some("DISABLED".to_owned());
        row.stream_mode = Some(false);
        row.prompt_slug = None;
        row.prompt_version_id = None;
        let target = Target { model: &EMBED, path: "config".to_owned(), mode: "SINGLE" };
        let outcome =
            self.provider.call(&mut self.rng, &target, APPS[visit.app].retries, at, usage, false);
        row.request.body = Some(bodies::embedding_request(EMBED.name, &inputs));
        row.response.body = Some(if outcome.is_success() {
            bodies::embedding_response(EMBED.name, inputs.len(), usage)
        } else {
            bodies::failure(EMBED.provider, EMBED.name, outcome.status)
        });
        self.push(row, visit, &target, &outcome, usage);
    }

    /// Returns every attempt of a call with its result: one, or two if the first target failed and
    /// there is a second.
    fn send(
        &mut self,
        app: &'static App,
        paid: bool,
        at: DateTime<Utc>,
        usage: Usage,
        streamed: bool,
        is_hit: bool,
    ) -> Vec<(Target, Sent)> {
        let mut all = Vec::new();
        let mut now = at;
        for target in targets(&app.route, paid, &mut self.rng) {
            let outcome = if is_hit {
                self.provider.hit(&mut self.rng, now, streamed)
            } else {
                self.provider.call(&mut self.rng, &target, app.retries, now, usage, streamed)
            };
            now = outcome.end();
            let done = outcome.is_success();
            all.push((target, outcome));
            if done {
                break;
            }
        }
        all
    }

    /// Returns the cache status of a question, and the answer if it is a hit.
    fn look_up(
        &mut self,
        app: usize,
        question: &str,
        at: DateTime<Utc>,
    ) -> (&'static str, Option<String>) {
        let kind = APPS[app].cache;
        if kind == Cache::Off {
            return ("DISABLED", None);
        }
        let fresh =
            |given: DateTime<Utc>| given < at && at - given < Duration::minutes(CACHE_MINUTES);
        if let Some((answer, _)) =
            self.cached.get(&(app, question.to_owned())).filter(|(_, given)| fresh(*given))
        {
            return if self.rng.random_bool(0.05) {
                ("REFRESH", None)
            } else {
                ("HIT", Some(answer.clone()))
            };
        }
        if kind == Cache::Simple {
            return ("MISS", None);
        }
        // Questions with the same beginning count as similar in a semantic cache.
        let beginning = question.get(..14).unwrap_or(question);
        let near = self.cached.iter().filter(|((owner, known), (_, given))| {
            *owner == app && known.starts_with(beginning) && fresh(*given)
        });
        // The choice must not depend on the order of the map, which is not defined.
        match near.min_by(|one, other| one.0.cmp(other.0)) {
            Some((_, (answer, _))) if self.rng.random_bool(0.3) => {
                ("SEMANTIC HIT", Some(answer.clone()))
            }
            _ => ("SEMANTIC MISS", None),
        }
    }

    fn answer(&mut self, visit: &Visit) -> String {
        let many = self.rng.random_range(1..=4);
        let sentences = APPS[visit.app].theme.answers.choose_multiple(&mut self.rng, many);
        sentences.map(|sentence| fill(sentence, &visit.words)).collect::<Vec<_>>().join(" ")
    }

    /// Returns the fields that all rows of a call share.
    fn row(&mut self, visit: &Visit, call: &str, span: Span) -> Record {
        let app = &APPS[visit.app];
        let (runtime, version, sdk) = app.client;
        let text = |text: &str| Some(text.to_owned());
        let mut metadata = vec![
            ("_user".to_owned(), visit.user.clone()),
            ("_environment".to_owned(), visit.environment.to_owned()),
            ("feature".to_owned(), app.feature.to_owned()),
        ];
        if matches!(app.route, super::applications::Route::Conditional(..)) {
            metadata.push(("plan".to_owned(), if visit.paid { "paid" } else { "free" }.to_owned()));
        }
        Record {
            organisation_id: text(app.organisation),
            workspace_slug: text(app.workspace),
            cost_currency: text("USD"),
            request_method: text("POST"),
            config: app.config.map(str::to_owned),
            prompt_slug: app.prompt.map(|(slug, _)| slug.to_owned()),
            prompt_version_id: app.prompt.map(|(_, version)| version.to_owned()),
            runtime: text(runtime),
            runtime_version: text(version),
            sdk_version: text(sdk),
            trace_id: text(&visit.trace),
            span_name: text(span.name),
            parent_span_id: span.parent,
            internal_trace_id: text(call),
            user_id: text(&visit.user),
            api_key_id: self.keys.get(visit.app).cloned(),
            source: text("gatelog-demo"),
            do_not_track: Some(visit.untracked),
            metadata,
            ..Record::default()
        }
    }

    /// Completes a row with the result of one attempt, and queues it.
    fn push(
        &mut self,
        mut row: Record,
        visit: &Visit,
        target: &Target,
        outcome: &Sent,
        usage: Usage,
    ) {
        if self.made >= self.plan.records || outcome.at >= self.plan.end {
            return;
        }
        let Model { provider, name, url, input_cents, output_cents, .. } = *target.model;
        let usage = if outcome.is_success() { usage } else { Usage::default() };
        let cost = usage.prompt_tokens as f64 * input_cents
            + usage.completion_tokens as f64 * output_cents;
        let organisation = APPS[visit.app].organisation.split('-').next().unwrap_or_default();
        let id = id(outcome.at, &mut self.rng);
        row.span_id = Some(id.clone());
        row.id = Some(id);
        row.created_at = Some(outcome.at);
        row.is_success = Some(i32::from(outcome.is_success()));
        row.ai_org = Some(provider.to_owned());
        row.ai_model = Some(name.to_owned());
        row.req_units = Some(usage.prompt_tokens);
        row.res_units = Some(usage.completion_tokens);
        row.total_units = Some(usage.total_tokens);
        row.cost = Some((cost * 100.0).round() / 1e8);
        row.request_url = Some(url.to_owned());
        row.response_status_code = Some(i32::from(outcome.status));
        row.response_time = Some(outcome.response_ms);
        row.time_to_last_token = outcome.last_token_ms;
        row.upstream_response_time = outcome.upstream_ms;
        row.retry_success_count = Some(outcome.retries);
        row.mode = Some(target.mode.to_owned());
        row.last_used_option = Some(target.path.clone());
        row.virtual_key = Some(format!("{provider}-{organisation}"));
        if visit.untracked {
            (row.request, row.response) = (Sides::default(), Sides::default());
        } else {
            row.request.headers = Some("{\"content-type\":\"application/json\"}".to_owned());
            let request = &row.internal_trace_id.as_deref().unwrap_or_default()[..8];
            row.response.headers = Some(format!(
                "{{\"content-type\":\"application/json\",\"x-request-id\":\"req-{request}\"}}"
            ));
        }
        self.waiting.insert((outcome.at, self.made), row);
        self.made += 1;
    }
}

impl Iterator for Generator {
    type Item = Record;

    fn next(&mut self) -> Option<Record> {
        loop {
            let all_made = self.made >= self.plan.records;
            if let Some(first) = self.waiting.first_entry()
                && (all_made || first.key().0 < self.next_start)
            {
                return Some(first.remove());
            }
            if all_made {
                return None;
            }
            self.visit();
        }
    }
}

/// Distribution of the calls over time: for each hour, the share of all calls before it.
#[derive(Debug)]
struct Hours {
    start: DateTime<Utc>,
    end: DateTime<Utc>,
    before: Vec<f64>,
}

impl Hours {
    fn new(plan: Plan) -> Self {
        let start = plan.end - Duration::days(i64::from(plan.days));
        let mut before = vec![0.0];
        for hour in 0..i64::from(plan.days) * 24 {
            let sum = before.last().copied().unwrap_or_default();
            before.push(sum + load(start + Duration::hours(hour)));
        }
        let total = before.last().copied().unwrap_or(1.0);
        before.iter_mut().for_each(|sum| *sum /= total);
        Self { start, end: plan.end, before }
    }

    /// Returns the time before which this share of all calls was made.
    fn at(&self, share: f64) -> DateTime<Utc> {
        let hour =
            self.before.partition_point(|before| *before <= share).clamp(1, self.before.len() - 1);
        let low = self.before[hour - 1];
        let high = self.before[hour];
        let within = ((share - low) / (high - low)).clamp(0.0, 1.0);
        let millis = (hour as f64 - 1.0 + within) * 3_600_000.0;
        let at = (self.start + Duration::milliseconds(millis as i64)).trunc_subsecs(3);
        at.min(self.end - Duration::milliseconds(1))
    }
}

/// Returns the load of an hour, UTC: quiet nights, two peaks a day, a third of it on weekends.
fn load(at: DateTime<Utc>) -> f64 {
    use chrono::Datelike;
    const BY_HOUR: [u8; 24] =
        [9, 7, 6, 6, 7, 10, 18, 34, 62, 84, 92, 88, 74, 80, 93, 96, 90, 74, 58, 46, 38, 30, 20, 13];
    let weekend = matches!(at.weekday(), Weekday::Sat | Weekday::Sun);
    f64::from(BY_HOUR[at.hour() as usize % 24]) * if weekend { 0.35 } else { 1.0 }
}

/// Replaces each `{name}` of a pattern.
fn fill(pattern: &str, words: &[(&'static str, &'static str)]) -> String {
    let mut text = pattern.to_owned();
    for (list, word) in words {
        let slot = format!("{{{list}}}");
        if text.contains(&slot) {
            text = text.replace(&slot, word);
        }
    }
    text
}

fn uuid(rng: &mut SmallRng) -> String {
    uuid::Builder::from_random_bytes(rng.random()).into_uuid().to_string()
}

/// Returns a UUIDv7 with that time.
fn id(at: DateTime<Utc>, rng: &mut SmallRng) -> String {
    let millis = u64::try_from(at.timestamp_millis()).unwrap_or(0);
    let id: Uuid = uuid::Builder::from_unix_timestamp_millis(millis, &rng.random()).into_uuid();
    id.to_string()
}
