//! Signatures of values that this server issues and later accepts: HMAC-SHA256, hexadecimal.

use ring::hmac::{self, HMAC_SHA256, Key};

/// Returns the signature of a text.
pub(crate) fn sign(secret: &[u8], text: &str) -> String {
    hex::encode(hmac::sign(&Key::new(HMAC_SHA256, secret), text.as_bytes()))
}

/// Returns true if `signature` belongs to `text`. Takes the same time for every wrong signature.
pub(crate) fn verify(secret: &[u8], text: &str, signature: &str) -> bool {
    let key = Key::new(HMAC_SHA256, secret);
    hex::decode(signature)
        .is_ok_and(|signature| hmac::verify(&key, text.as_bytes(), &signature).is_ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_signature_is_the_standards() {
        // Cases 2 and 6 of RFC 4231.
        let text = "what do ya want for nothing?";
        let signature = "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843";
        assert_eq!(sign(b"Jefe", text), signature);
        let long = sign(&[0xaa; 131], "Test Using Larger Than Block-Size Key - Hash Key First");
        assert_eq!(long, "60e431591ee0b67f0d8a26aacbf5b77f8e0bc6213728c5140546040f0ee37f54");

        assert!(verify(b"Jefe", text, signature));
        assert!(!verify(b"jefe", text, signature));
        assert!(!verify(b"Jefe", "what do ya want for something?", signature));
        for wrong in [
            "",
            &signature[2..],
            &format!("{signature}00"),
            &signature.replace('5', "6"),
            "no hexadecimal",
        ] {
            assert!(!verify(b"Jefe", text, wrong), "{wrong}");
        }
    }
}
