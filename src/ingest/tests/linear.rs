//! The cost of input is linear: reading, joining, masking and guarding input takes at most five
//! times as long for four times as much.
//!
//! Each case builds an input of a size and measures the CPU time that the thread spends on it. Each
//! file that reads bytes of clients must be named by a case, so a new file without one fails the
//! test.

mod joiners;

use std::collections::{BTreeMap, BTreeSet};
use std::hint::black_box;
use std::path::Path;
use std::time::Duration;

use cpu_time::ThreadTime;
use serde_json::json;

use self::joiners::of_joiners;
use super::*;
use crate::config::{self, Config};
use crate::ingest::excerpt::seen;
use crate::ingest::otlp::{Encoding, Signal};
use crate::record::json::{self as text, FieldError};
use crate::record::{BatchBuilder, Feedback};

/// Number of elements of the smaller input.
const SIZE: usize = 256;
/// Maximum ratio of the times for four times as much input.
const MAX_TIMES: f64 = 5.0;
/// Measurements of one input. The shortest counts, since other work on the machine only adds time.
const RUNS: usize = 2;
/// Attempts to measure a small enough ratio.
const TRIES: usize = 5;

type Work = Box<dyn FnMut()>;

/// Work on an input, to be measured.
struct Case {
    name: String,
    /// Files whose code does the work.
    of: &'static [&'static str],
    make: Box<dyn Fn(usize) -> Work>,
}

fn case(
    name: impl Into<String>,
    of: &'static [&'static str],
    make: impl Fn(usize) -> Work + 'static,
) -> Case {
    Case { name: name.into(), of, make: Box::new(make) }
}

/// Returns work on the same input each time.
fn with<T: 'static>(input: T, mut work: impl FnMut(&T) + 'static) -> Work {
    Box::new(move || work(black_box(&input)))
}

/// Returns the elements of a list, or the members of an object, without its brackets.
fn many(count: usize, one: impl Fn(usize) -> String) -> String {
    (0..count).map(one).collect::<Vec<_>>().join(",")
}

fn object(count: usize) -> String {
    format!("{{{}}}", many(count, |at| format!("\"k{at}\":\"v\"")))
}

fn ingested(shape: SourceFormat, body: String, headers: Headers) -> Work {
    let context = Context { headers, ..Context::new(now()) };
    with((body, context), move |(body, context)| {
        black_box(lines(shape, body.as_bytes(), context, &mut || "id".to_owned()));
    })
}

/// Records of each format: many, some with many members, some with much metadata, and bad ones.
fn of_shape(shape: SourceFormat) -> Vec<Case> {
    const FILES: &[&str] = &[
        "ingest/mod.rs",
        "ingest/context.rs",
        "ingest/limits.rs",
        "ingest/rejection.rs",
        "ingest/native.rs",
        "ingest/portkey.rs",
        "ingest/litellm.rs",
        "ingest/hook.rs",
        "ingest/fields.rs",
        "ingest/usage.rs",
        "ingest/usage/members.rs",
        "ingest/usage/tokens.rs",
        "ingest/usage/shapes.rs",
        "ingest/usage/attributes.rs",
        "ingest/policy.rs",
        "ingest/price.rs",
        "ingest/excerpt.rs",
        "ingest/otlp/mod.rs",
        "ingest/otlp/signal.rs",
        "ingest/otlp/export.rs",
        "ingest/otlp/call.rs",
        "record/json/decode.rs",
        "record/json/value.rs",
        "record/json/mod.rs",
    ];
    let record = move |inner: &str| match shape {
        SourceFormat::Native => format!(r#"{{"metadata":{inner},"request":{{"body":{inner}}}}}"#),
        SourceFormat::Portkey => format!(
            r#"{{"request":{{"headers":{inner},"body":{inner}}},"response":{{"body":{inner}}},"metadata":{inner}}}"#
        ),
        SourceFormat::LiteLlm => format!(
            r#"{{"call_type":"completion","messages":[{inner}],"response":{inner},"model_parameters":{inner},"metadata":{{"spend_logs_metadata":{inner}}}}}"#
        ),
        SourceFormat::GatewayHook => format!(
            r#"{{"request":{{"json":{inner},"headers":{inner}}},"response":{{"json":{inner},"statusCode":200}},"metadata":{inner}}}"#
        ),
        SourceFormat::Otlp => traces(
            &format!(r#"[{{"key":"input.value","value":{{"stringValue":{}}}}}]"#, json!(inner)),
            &[inner.len()],
        ),
    };
    let named = |what: &str| format!("{shape}: {what}");
    vec![
        case(named("many records"), FILES, move |n| {
            let one = record("{}");
            ingested(shape, vec![one; n / 8].join("\n"), Headers::default())
        }),
        case(named("many members"), FILES, move |n| {
            ingested(shape, record(&object(n)), Headers::default())
        }),
        case(named("many unknown members"), FILES, move |n| {
            ingested(shape, object(n), Headers::default())
        }),
        case(named("many bad records"), FILES, move |n| {
            ingested(shape, vec!["{\"x\":"; n / 8].join("\n"), Headers::default())
        }),
        case(named("much metadata in a header"), FILES, move |n| {
            let headers = Headers {
                metadata: Some(object(n)),
                span_name: Some("s".repeat(8 * n)),
                ..Headers::default()
            };
            ingested(shape, vec![record("{}"); n / 8].join("\n"), headers)
        }),
    ]
}

/// Returns an export of spans, each with a resource's attributes.
fn traces(resource: &str, spans: &[usize]) -> String {
    let span = |at: &usize| {
        format!(
            r#"{{"traceId":"5b8efff798038103d269b633813fc60c","spanId":"{:016x}","name":"chat","startTimeUnixNano":"1795278418000000000","attributes":[{{"key":"gen_ai.operation.name","value":{{"stringValue":"chat"}}}}]}}"#,
            at + 1
        )
    };
    let spans: Vec<String> = spans.iter().map(span).collect();
    format!(
        r#"{{"resourceSpans":[{{"resource":{{"attributes":{resource}}},"scopeSpans":[{{"spans":[{}]}}]}}]}}"#,
        spans.join(",")
    )
}

fn attributes(count: usize) -> String {
    format!("[{}]", many(count, |at| format!(r#"{{"key":"k{at}","value":{{"stringValue":"v"}}}}"#)))
}

/// Cases of exports in both encodings and of all signals.
fn of_otlp() -> Vec<Case> {
    const FILES: &[&str] = &[
        "ingest/otlp/mod.rs",
        "ingest/otlp/export.rs",
        "ingest/otlp/call.rs",
        "ingest/otlp/any.rs",
        "ingest/otlp/wire.rs",
        "ingest/otlp/content.rs",
        "ingest/otlp/messages.rs",
        "ingest/otlp/fragments.rs",
        "ingest/otlp/figures.rs",
        "ingest/otlp/others.rs",
        "ingest/otlp/labels.rs",
        "ingest/otlp/object.rs",
        "ingest/otlp/conventions.rs",
    ];
    let read = |encoding: Encoding, signal: Signal, request: String| {
        let bytes = match encoding {
            Encoding::Json => request.into_bytes(),
            Encoding::Protobuf => super::otlp::protobuf(&serde_json::from_str(&request).unwrap()),
        };
        with((bytes, Context::new(now())), move |(bytes, context)| match signal {
            Signal::Traces => {
                black_box(crate::ingest::otlp::traces(encoding, bytes, context, &mut |call| {
                    drop(black_box(call))
                }))
                .unwrap();
            }
            Signal::Logs => crate::ingest::otlp::logs(encoding, bytes, context, &mut |fragment| {
                drop(black_box(fragment))
            })
            .unwrap(),
            Signal::Metrics => drop(black_box(crate::ingest::otlp::data_points(encoding, bytes))),
        })
    };
    let logs = |events: &[String]| {
        format!(r#"{{"resourceLogs":[{{"scopeLogs":[{{"logRecords":[{}]}}]}}]}}"#, events.join(","))
    };
    let event = |span: usize, name: &str, attributes: &str| {
        format!(
            r#"{{"traceId":"5b8efff798038103d269b633813fc60c","spanId":"{:016x}","timeUnixNano":"{}","eventName":"{name}","attributes":{attributes}}}"#,
            span + 1,
            1_795_278_418_000_000_000_u64 + span as u64
        )
    };
    let mut cases = Vec::new();
    for encoding in [Encoding::Json, Encoding::Protobuf] {
        let named = |what: &str| format!("OTLP in {encoding:?}: {what}");
        let spans = |n: usize| (0..n / 8).collect::<Vec<_>>();
        cases.extend([
            case(named("many attributes of a resource of many spans"), FILES, move |n| {
                read(encoding, Signal::Traces, traces(&attributes(n), &spans(n)))
            }),
            case(named("a long attribute of a resource of many spans"), FILES, move |n| {
                let long = format!(r#"[{{"key":"user.id","value":{{"stringValue":"{}"}}}}]"#, "x".repeat(64 * n));
                read(encoding, Signal::Traces, traces(&long, &spans(n)))
            }),
            case(named("many attributes of a span"), FILES, move |n| {
                let all = attributes(n);
                let request = traces("[]", &[0]).replace("\"attributes\":[{", &format!("\"attributes\":[{},{{", &all[1..all.len() - 1]));
                read(encoding, Signal::Traces, request)
            }),
            case(named("many numbered messages"), FILES, move |n| {
                let message = |at| format!(r#"{{"key":"gen_ai.prompt.{at}.content","value":{{"stringValue":"v"}}}}"#);
                let request = traces("[]", &[0])
                    .replace("\"attributes\":[{", &format!("\"attributes\":[{},{{", many(n / 4, message)));
                read(encoding, Signal::Traces, request)
            }),
            case(named("many events of one span"), FILES, move |n| {
                let events = |_| event(0, "gen_ai.user.message", r#"[{"key":"content","value":{"stringValue":"v"}}]"#);
                read(encoding, Signal::Logs, logs(&(0..n / 4).map(events).collect::<Vec<_>>()))
            }),
            case(named("events of many spans"), FILES, move |n| {
                let events = |at| event(at, "gen_ai.user.message", r#"[{"key":"content","value":{"stringValue":"v"}}]"#);
                read(encoding, Signal::Logs, logs(&(0..n / 4).map(events).collect::<Vec<_>>()))
            }),
            case(named("an event of many parts"), FILES, move |n| {
                let parts = format!("[{{\"role\":\"user\",\"parts\":[{}]}}]", many(n, |_| r#"{"type":"text","content":"v"}"#.to_owned()));
                let all = format!(r#"[{{"key":"gen_ai.input.messages","value":{{"stringValue":{}}}}}]"#, json!(parts));
                read(encoding, Signal::Logs, logs(&[event(0, "gen_ai.client.inference.operation.details", &all)]))
            }),
            case(named("many data points"), FILES, move |n| {
                let points = many(n, |_| "{}".to_owned());
                let request = format!(r#"{{"resourceMetrics":[{{"scopeMetrics":[{{"metrics":[{{"gauge":{{"dataPoints":[{points}]}}}}]}}]}}]}}"#);
                match encoding {
                    Encoding::Json => read(encoding, Signal::Metrics, request),
                    Encoding::Protobuf => {
                        read(encoding, Signal::Traces, traces(&attributes(n), &[0]))
                    }
                }
            }),
        ]);
    }
    cases
}

/// Cases of the splitter, over pieces that are far smaller than a record.
fn of_splitter() -> Vec<Case> {
    let split = |body: String| {
        with(body, |body| {
            let mut splitter = Splitter::new();
            body.as_bytes()
                .chunks(64)
                .for_each(|fragment| drop(black_box(splitter.push(fragment))));
            black_box(splitter.finish());
        })
    };
    let named = |what: &str| format!("splitter: {what}");
    const FILES: &[&str] = &["ingest/split.rs"];
    vec![
        case(named("lines"), FILES, move |n| split("{\"a\":1}\n".repeat(n))),
        case(named("objects on one line"), FILES, move |n| {
            split(format!("{{}}\n{}\n", "{\"a\":1} ".repeat(n)))
        }),
        case(named("blanks between braces"), FILES, move |n| {
            split(format!("{{}}\n{{{}\n", format!("\"{}{{\"", " ".repeat(64)).repeat(n)))
        }),
        case(named("one long line"), FILES, move |n| {
            split(format!("{{\"a\":\"{}\"}}", "x".repeat(64 * n)))
        }),
        case(named("one long line of text"), FILES, move |n| split("x".repeat(64 * n))),
        case(named("one long record of many lines"), FILES, move |n| {
            split(format!("{{\n{}1}}", "\"a\":\n".repeat(n)))
        }),
        case(named("white space first"), FILES, move |n| split(" \n".repeat(32 * n))),
        case("chunks of few records", &["ingest/pipeline.rs"], |n| {
            let chunk = Splitter::new().push("{\"a\":1}\n".repeat(64 * n).as_bytes());
            with(chunk, |chunk| drop(black_box(pipeline::few_records(chunk.clone(), 16))))
        }),
        case(named("white space after the first line"), FILES, move |n| {
            split(format!("{{\"{}\"\n{}:1}}", "x".repeat(32 * n), " \n".repeat(16 * n)))
        }),
        case(named("an array"), FILES, move |n| {
            split(format!("[{}]", many(n, |_| "{\"a\":[1]}".to_owned())))
        }),
    ]
}

/// Cases of masking and of redaction rules.
fn of_masks() -> Vec<Case> {
    const FILES: &[&str] = &[
        "ingest/mask/mod.rs",
        "ingest/mask/json.rs",
        "ingest/mask/names.rs",
        "ingest/mask/secrets.rs",
        "ingest/mask/urls.rs",
        "ingest/redact.rs",
        "ingest/policy.rs",
        "ingest/arrow.rs",
    ];
    let protected = |record: Record, rules: &str| {
        let redact = config::Redact::parse(rules).unwrap();
        let policy = Policy::open(&Config { redact, ..Config::default() }).unwrap();
        with(record, move |record| {
            let mut record = record.clone();
            policy.protect(&mut record);
            black_box(record);
        })
    };
    let headers = |text: String| Record {
        request: Message { body: None, headers: Some(text) },
        ..Record::default()
    };
    let body = |text: String| Record {
        request: Message { body: Some(text), headers: None },
        ..Record::default()
    };
    const RULES: &str =
        "[a]\npattern = '\\d{4}'\n[b]\npaths = ['request.body..x', 'metadata.k1']\n";
    vec![
        case("mask: headers that are called sensitive", FILES, move |n| {
            let names: Vec<String> = (0..n).map(|at| format!("a{at}")).collect();
            let all = many(n, |at| format!("\"h{at}\":\"\""));
            protected(
                headers(format!(
                    "{{\"x-portkey-sensitive-headers\":\"{}\",{all}}}",
                    names.join(",")
                )),
                "",
            )
        }),
        case("mask: secrets in headers", FILES, move |n| {
            protected(
                headers(format!(
                    "{{{}}}",
                    many(n, |at| format!("\"api-key-{at}\":\"0123456789abcdef\""))
                )),
                "",
            )
        }),
        case("mask: JSON in a header", FILES, move |n| {
            let hooks =
                format!("{{{}}}", many(n, |at| format!("\"api_key{at}\":\"0123456789abcdef\"")));
            protected(headers(format!("{{\"x-portkey-config\":{}}}", json!(hooks))), "")
        }),
        case("mask: a URL", FILES, move |n| {
            let pairs = vec!["key=0123456789abcdef"; n].join("&");
            protected(
                Record { request_url: Some(format!("http://host/?{pairs}")), ..Record::default() },
                "",
            )
        }),
        case("mask: a config", FILES, move |n| {
            let config = format!(
                "{{\"targets\":[{}]}}",
                many(n, |_| "{\"api_key\":\"0123456789abcdef\"}".to_owned())
            );
            protected(Record { config: Some(config), ..Record::default() }, "")
        }),
        case("redact: a body", FILES, move |n| {
            protected(
                body(format!("[{}]", many(n, |_| "{\"x\":1,\"y\":\"1234\"}".to_owned()))),
                RULES,
            )
        }),
        case("redact: metadata", FILES, move |n| {
            let metadata = (0..n).map(|at| (format!("k{at}"), "1234".to_owned())).collect();
            protected(Record { metadata, ..Record::default() }, RULES)
        }),
        case("mask: a batch", FILES, move |n| {
            let mut builder = BatchBuilder::new();
            (0..n / 4).for_each(|_| {
                builder.append(&headers("{\"api-key\":\"0123456789abcdef\"}".to_owned()))
            });
            with(builder.finish(), |batch| {
                drop(black_box(arrow::protect(&Policy::default(), batch.clone())))
            })
        }),
    ]
}

fn fragment(body: String) -> Record {
    Record { request: Message { body: Some(body), headers: None }, ..Record::default() }
}

/// Cases of JSON text and its records.
fn from_json() -> Vec<Case> {
    const FILES: &[&str] = &[
        "record/json/finite.rs",
        "record/json/text.rs",
        "record/json/value.rs",
        "record/json/decode.rs",
        "record/json/encode.rs",
        "record/json/field_error.rs",
        "record/json/mod.rs",
        "record/batch.rs",
        "record/limits.rs",
        "record/builders.rs",
        "record/columns.rs",
        "record/feedback.rs",
    ];
    let parsed = |text: String| with(text, |text| drop(black_box(text::parse(text))));
    vec![
        case("JSON: numbers that there are not", FILES, |n| {
            with(vec!["NaN,-Infinity"; n].join(","), |text| drop(black_box(text::finite(text))))
        }),
        case("JSON: strings that are not closed", FILES, |n| {
            with("\"\\".repeat(n), |text| {
                black_box((text::check_json(text), text::embeddable(text), text::finite(text)));
            })
        }),
        case("JSON: halves of surrogate pairs", FILES, |n| {
            with(format!("\"{}\"", "\\ud83d".repeat(n)), |text| {
                drop(black_box(text::unquote(text)))
            })
        }),
        case("JSON: text of many lines", FILES, |n| {
            with(format!("[{}]", vec!["1,\n"; n].concat() + "1"), |text| {
                drop(black_box(text::embeddable(text)))
            })
        }),
        case("JSON: much depth", FILES, |n| {
            with("[".repeat(n) + &"]".repeat(n), |text| drop(black_box(text::embeddable(text))))
        }),
        case("JSON: a moment of many digits", FILES, |n| {
            with("1".repeat(16 * n), |text| {
                black_box(crate::time::parse(text));
            })
        }),
        case("JSON: a number of many digits", FILES, move |n| {
            parsed(format!("{{\"req_units\":{}}}", "1".repeat(16 * n)))
        }),
        case("JSON: an unknown name", FILES, move |n| {
            parsed(format!("{{\"{}\":1}}", "x".repeat(16 * n)))
        }),
        case("JSON: one name over and over", FILES, move |n| {
            parsed(format!("{{{}}}", many(n, |_| "\"id\":\"a\"".to_owned())))
        }),
        case("JSON: metadata in two lists", FILES, move |n| {
            let keys = many(n, |at| format!("\"{at}\""));
            parsed(format!("{{\"metadata.key\":[{keys}],\"metadata.value\":[{keys}]}}"))
        }),
        case("rows of a batch", &["record/read.rs"], |n| {
            let mut builder = BatchBuilder::new();
            (0..n / 8).for_each(|_| builder.append(&fragment("{}".to_owned())));
            with(builder.finish(), |batch| drop(black_box(Record::from_batch(batch))))
        }),
        case("limits: much metadata", FILES, |n| {
            let metadata = (0..n).map(|at| (at.to_string(), "x".repeat(at % 16))).collect();
            with(Record { metadata, ..Record::default() }, |record| {
                drop(black_box(record.clone().keep_limits()))
            })
        }),
    ]
}

/// Cases of the remaining files that process input of clients.
fn of_others() -> Vec<Case> {
    let usage = |reply: String| {
        with(reply, |reply| {
            black_box(usage::Usage::from_reply(&[], Some(reply)));
        })
    };
    vec![
        case(
            "usage: a stream of many chunks",
            &["ingest/usage.rs", "ingest/usage/shapes.rs"],
            move |n| {
                usage(format!(
                    "[{}]",
                    many(n, |at| format!("{{\"usage\":{{\"prompt_tokens\":{at}}}}}"))
                ))
            },
        ),
        case("usage: objects within objects", &["ingest/usage.rs"], move |n| {
            let inner = object(n);
            usage(format!(
                "{{\"response\":{{\"message\":{{\"delta\":{inner}}},\"result\":{inner}}},\"x_groq\":{inner}}}"
            ))
        }),
        case("usage: the text of a Python object", &["ingest/litellm.rs"], |n| {
            let usage = "prompt_tokens=   ".repeat(n);
            ingested(
                SourceFormat::LiteLlm,
                json!({ "model": "m", "usage": usage }).to_string(),
                Headers::default(),
            )
        }),
        case("targets: many, with a long host", &["ingest/targets.rs"], |n| {
            let target = "{\"provider\":\"openai\"}";
            let config = format!(
                "{{\"custom_host\":\"{}\",\"targets\":[{}]}}",
                "x".repeat(16 * n),
                vec![target; n].join(",")
            );
            with(config, |config| {
                black_box(targets::Config::read(Some(config), true).answerer(Some("openai"), None));
            })
        }),
        case("names: a model of many vendors", &["ingest/names.rs"], |n| {
            with("openai/".repeat(n), |model| drop(black_box(names::canonical_model(None, model))))
        }),
        case("names: a URL", &["ingest/names.rs"], |n| {
            with("http://".to_owned() + &"a.".repeat(n), |url| {
                black_box(names::provider_of_url(url));
            })
        }),
        case("doubled keys: an object of many members", &["record/json/doubled.rs"], |n| {
            let text = format!("[{},{}]", object(n), many(n, |_| "{\"a\":1,\"a\":2}".to_owned()));
            with(text, |text| drop(black_box(text::last_keys(text))))
        }),
        case("excerpt: a record of many members", &["ingest/excerpt.rs"], |n| {
            let text = format!("{{\"headers\":{},\"cost\":\"x\"}}", object(n));
            let error = FieldError::new("cost", "x", "a number");
            let input = (text, error, Context::new(now()));
            with(input, |(text, error, context)| drop(black_box(seen(text, error, context))))
        }),
        case("feedback: many items", &["ingest/feedback.rs"], |n| {
            let items =
                format!("[{}]", many(n / 2, |_| "{\"trace_id\":\"t\",\"value\":1}".to_owned()));
            with(items, |items| drop(black_box(feedback::drafts(items.as_bytes()))))
        }),
        case("feedback: states", &["ingest/feedback.rs"], |n| {
            let one = |at: usize| Feedback {
                id: Some((at % 7).to_string()),
                value: Some(1.0),
                created_at: DateTime::from_timestamp(at as i64, 0),
                ..Feedback::default()
            };
            let given: Vec<Feedback> = (0..n).map(one).collect();
            with(given, |given| drop(black_box(feedback::states(given.clone(), Vec::new()))))
        }),
        case("control plane: many rows", &["ingest/control_plane.rs"], |n| {
            let row = "{\"id\":\"a\",\"created_at\":\"2026-11-21 10:00:00\"}";
            let body =
                format!("{{\"table\":\"generations\",\"data\":[{}]}}", vec![row; n / 8].join(","));
            with((body, Context::new(now())), |(body, context)| {
                drop(black_box(crate::ingest::control_plane::rows(body.as_bytes(), context)))
            })
        }),
        case("control plane: a long log object", &["ingest/control_plane.rs"], |n| {
            let inner = object(n);
            let body = format!(
                "{{\"logObject\":{{\"_id\":\"a\",\"created_at\":\"2026-11-21 10:00:00\",\"request\":{{\"headers\":{inner},\"portkeyHeaders\":{inner},\"body\":{inner}}},\"response\":{{}}}}}}"
            );
            with((body, Context::new(now())), |(body, context)| {
                drop(black_box(crate::ingest::control_plane::log(body.as_bytes(), context)))
            })
        }),
    ]
}

fn cases() -> Vec<Case> {
    let shapes = SourceFormat::ALL.into_iter().flat_map(of_shape);
    let others = [of_otlp(), of_splitter(), of_masks(), of_joiners(), from_json(), of_others()];
    shapes.chain(others.into_iter().flatten()).collect()
}

fn least(work: &mut Work) -> Duration {
    let once = |work: &mut Work| {
        let start = ThreadTime::now();
        work();
        start.elapsed()
    };
    (0..RUNS).map(|_| once(work)).min().unwrap()
}

#[test]
fn four_times_the_input_takes_at_most_five_times_the_time() {
    let mut slow = Vec::new();
    for Case { name, make, .. } in cases() {
        let mut small = make(SIZE);
        let mut large = make(4 * SIZE);
        let mut times = f64::INFINITY;
        for _ in 0..TRIES {
            // Work that is too short to measure takes 0.
            let one = least(&mut small);
            let four = least(&mut large);
            times =
                times.min(four.as_secs_f64() / one.max(Duration::from_micros(20)).as_secs_f64());
            if times <= MAX_TIMES {
                break;
            }
        }
        if times > MAX_TIMES {
            slow.push(format!("{name}: {times:.1} times"));
        }
    }
    assert!(slow.is_empty(), "{}", slow.join("\n"));
}

#[test]
fn every_file_that_goes_over_input_has_a_case() {
    /// Files that do no work of their own on input.
    const NONE: [&str; 8] = [
        "parts/mod.rs",
        "record/attempt.rs",
        "record/message.rs",
        "record/mod.rs",
        "record/rows.rs",
        "record/schema.rs",
        "record/json/reader.rs",
        "record/json/reason.rs",
    ];
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut named: BTreeMap<&str, Vec<String>> = BTreeMap::new();
    for Case { name, of, .. } in cases() {
        of.iter().for_each(|file| named.entry(file).or_default().push(name.clone()));
    }
    let mut folders: Vec<_> =
        ["ingest", "parts", "record"].map(|folder| source.join(folder)).into();
    let mut missing = BTreeSet::new();
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            let file = path.strip_prefix(&source).unwrap().to_string_lossy().into_owned();
            let is_tests = path.file_stem().is_some_and(|stem| stem == "tests");
            match (path.is_dir(), is_tests) {
                (_, true) => {}
                (true, false) => folders.push(path),
                (false, false) if named.contains_key(&*file) || NONE.contains(&&*file) => {}
                (false, false) => drop(missing.insert(file)),
            }
        }
    }
    assert!(missing.is_empty(), "no case of this test goes through {missing:?}");
    for file in named.keys() {
        assert!(source.join(file).exists(), "{file}");
    }
}
