//! Cases of joining parts of records.

use super::*;
use crate::parts::{JoinBuffer, Late, LatePart, RecordPart, amend, join, join_all};

/// Cases of joining parts. A small piece must not cause another scan of the waiting record.
pub(super) fn of_joiners() -> Vec<Case> {
    const FILES: &[&str] =
        &["parts/join.rs", "parts/bytes.rs", "parts/join_buffer.rs", "parts/late.rs"];
    let united = |first: String, second: String| {
        with([fragment(first), fragment(second)], |[first, second]| {
            black_box(join_all([(RecordPart::Fragment, first), (RecordPart::Fragment, second)]));
        })
    };
    let tagged = |name: &str, n: usize| {
        let metadata = (0..n).map(|at| (format!("{name}{at}"), String::new())).collect();
        Record { metadata, ..Record::default() }
    };
    let mut cases = vec![
        case("join: objects of many members", FILES, move |n| {
            united(object(n), object(n).replace('k', "l"))
        }),
        case("join: lists of one element over and over", FILES, move |n| {
            let list = |n: usize, end: &str| format!("{{\"m\":[{}{end}]}}", vec!["0"; n].join(","));
            united(list(n, ""), list(n / 2, ",1"))
        }),
        case("join: lists that nearly are the same", FILES, move |n| {
            let list = |n: usize| {
                format!("{{\"m\":[{}]}}", many(n, |at| (at % 2 + at / (n - 1)).to_string()))
            };
            united(list(n), list(n / 2))
        }),
        case("join: many pieces of long lists", FILES, move |n| {
            let mut fragments =
                vec![fragment(format!("{{\"m\":[{}]}}", vec!["0"; 16 * n].join(",")))];
            fragments.extend((0..250).map(|at| fragment(format!("{{\"m\":[{at}]}}"))));
            with(fragments, |fragments| {
                drop(black_box(join_all(
                    fragments.iter().map(|fragment| (RecordPart::Fragment, fragment)),
                )))
            })
        }),
        case("join: much metadata in both halves", FILES, move |n| {
            with([tagged("a", n), tagged("b", n)], |[first, second]| {
                drop(black_box(join(first.clone(), second.clone())))
            })
        }),
        case("amend: many late parts of a long record", FILES, move |n| {
            // This is the maximum number that is joined at once.
            let late = |at: usize| {
                let record = fragment(format!("{{\"m\":[{at}]}}")).into();
                LatePart { key: 1, part_kind: RecordPart::Fragment, record }
            };
            let late: Vec<LatePart> = (0..256).map(late).collect();
            let stored = fragment(format!("{{\"m\":[{}]}}", vec!["0"; 64 * n].join(",")));
            with((stored, late), |(stored, late)| drop(black_box(amend(stored, late))))
        }),
        case("late: parts that say that nothing may be kept", FILES, move |n| {
            with(n, |n| {
                let mut late = Late::<()>::default();
                late.add(1, RecordPart::Content, fragment("x".repeat(64 * n)), None);
                for _ in 0..(*n).min(256) {
                    late.untrack(1, |record| record.request = Message::default());
                    let record = Record { do_not_track: Some(true), ..Record::default() };
                    late.add(1, RecordPart::Figures, record, None);
                }
                black_box(late.len());
            })
        }),
    ];
    for part_kind in RecordPart::ALL {
        cases.push(case(format!("wait: small {part_kind:?} of a long record"), FILES, move |n| {
            // A record so long that another scan of it would show.
            let record = fragment(object(64 * n));
            let mut waiting = JoinBuffer::<()>::default();
            waiting.add(1, RecordPart::Fragment, record, 0, i64::MAX, None);
            let mut print = 0;
            Box::new(move || {
                for _ in 0..16 {
                    print += 1;
                    // After many pieces, it starts again with this one.
                    black_box(waiting.fit(1, part_kind, print));
                    black_box(waiting.add(
                        1,
                        part_kind,
                        fragment("{}".to_owned()),
                        print,
                        i64::MAX,
                        None,
                    ));
                }
            })
        }));
    }
    cases
}
