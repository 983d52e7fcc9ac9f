//! Errors say each thing once: checked wherever a test looks at a failure.

/// Clauses shorter than this may stand twice by chance, such as a name.
const SHORT: usize = 16;

/// Checks that no clause of an error line stands in it twice.
#[track_caller]
pub fn once(text: &str) {
    for line in text.lines() {
        let clauses: Vec<&str> =
            line.split(": ").flat_map(|part| part.split("; ")).map(str::trim).collect();
        for (at, clause) in clauses.iter().enumerate().filter(|(_, clause)| clause.len() >= SHORT) {
            assert!(!clauses[..at].contains(clause), "`{clause}` is said twice: {line}");
        }
    }
}

#[test]
fn a_repeated_clause_is_found() {
    once("error: cannot read `a`: no such file or directory; name another");
    let repeated =
        std::panic::catch_unwind(|| once("error: cannot read the file: x: cannot read the file"));
    assert!(repeated.is_err());
}
