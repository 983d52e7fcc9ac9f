//! Request and response of a call.

/// The JSON texts of one side of a call. Each is valid JSON on one line, as the client sent it.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Message {
    /// The payload, usually an object.
    pub body: Option<String>,
    /// The headers, an object of strings.
    pub headers: Option<String>,
}
