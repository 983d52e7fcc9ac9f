//! Ids of attempts. LiteLLM logs each attempt of a call under the id of the call, so the record of
//! an attempt has that id followed by a hash. A request that names the call means all of its
//! attempts.

/// Bytes of the hash in an attempt's id.
pub(crate) const HASH_BYTES: usize = 8;
/// Characters after the call's id: `-` and the hash in hexadecimal digits.
const SUFFIX: usize = 1 + 2 * HASH_BYTES;
/// SQL condition that is true for a row of `logs` whose id has the form of an attempt's id.
pub(crate) const IS_ATTEMPT: &str = "id ~ '^.+-[0-9a-f]{16}$'";
/// SQL expression for the id of the call of such a row.
pub(crate) const CALL: &str = "left(id, character_length(id) - 17)";

/// Creates the id of an attempt.
pub(crate) fn attempt_id(call: &str, hash: [u8; HASH_BYTES]) -> String {
    format!("{call}-{}", hex::encode(hash))
}

/// Returns the call's id if `id` has the form of an attempt's id.
pub(crate) fn call_of(id: &str) -> Option<&str> {
    let (call, suffix) = id.split_at_checked(id.len().checked_sub(SUFFIX)?)?;
    let is_digit = |byte: u8| matches!(byte, b'0'..=b'9' | b'a'..=b'f');
    let hash = suffix.strip_prefix('-')?;
    (!call.is_empty() && hash.bytes().all(is_digit)).then_some(call)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_call_is_found_in_the_ids_of_its_attempts_and_in_no_other() {
        let id = attempt_id("chatcmpl-1", [0, 1, 2, 3, 0xa, 0xb, 0xc, 0xff]);
        assert_eq!(id, "chatcmpl-1-000102030a0b0cff");
        assert_eq!(call_of(&id), Some("chatcmpl-1"));
        assert_eq!(call_of("é-000102030a0b0cff"), Some("é"));
        for other in [
            "",
            "chatcmpl-1",
            "-000102030a0b0cff",
            "chatcmpl-1-000102030A0B0CFF",
            "chatcmpl-1-00102030a0b0cff",
            "chatcmpl-1_000102030a0b0cff",
            "0199f2c4-77aa-7000-8000-000000000000",
            "ééééééééééééééééé",
        ] {
            assert_eq!(call_of(other), None, "{other}");
        }
        assert!(IS_ATTEMPT.contains(&format!("{{{}}}", 2 * HASH_BYTES)));
        assert!(CALL.contains(&format!("- {SUFFIX})")));
    }
}
