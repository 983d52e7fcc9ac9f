//! Minimum speed of a client that sends a body or reads a response.
//!
//! Only the time counts in which the server waits for the client. A client starts with a time
//! credit, spends it while the server waits, and earns it back with bytes. So a pause is allowed,
//! but the average speed must reach [`LEAST_SPEED`]. In addition, the total waiting time for one
//! body is limited. Every request body is watched ([`watch`]), whatever its route; responses are
//! watched where they are written ([`crate::http::middleware::write_timeout`]).

use std::fmt;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::extract::Request;
use axum::middleware::Next;
use axum::response::Response;
use hyper::body::{Body as HttpBody, Frame, SizeHint};
use tokio::time::{Instant, Sleep, sleep};

/// Average bytes per second that a client must send or read.
pub(crate) const LEAST_SPEED: u32 = 1 << 10;
/// Longest pause of a client within a body.
pub(crate) const PAUSE: Duration = Duration::from_secs(30);
/// Longest total waiting time for a body that is read as a whole.
pub(crate) const WHOLE_BODY: Duration = Duration::from_secs(600);
/// Longest total waiting time for a streamed body, and for a response.
pub(crate) const STREAM: Duration = Duration::from_secs(6 * 3600);
/// Prefix of the routes that stream bodies.
const STREAMED: &str = "/v1/ingest";

/// Remaining waiting time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Allowance {
    /// Longest pause.
    pause: Duration,
    /// Remaining part of the pause.
    credit: Duration,
    /// Remaining total waiting time.
    total: Duration,
}

impl Allowance {
    fn new(pause: Duration, total: Duration) -> Self {
        Self { pause, credit: pause, total }
    }

    fn left(&self) -> Duration {
        self.credit.min(self.total)
    }

    fn waited(&mut self, time: Duration) {
        self.credit = self.credit.saturating_sub(time);
        self.total = self.total.saturating_sub(time);
    }

    fn came(&mut self, bytes: usize) {
        let earned = Duration::from_secs(bytes as u64) / LEAST_SPEED;
        self.credit = self.pause.min(self.credit.saturating_add(earned));
    }
}

/// Measures the time in which the server waits for a client.
#[derive(Debug)]
pub(crate) struct Patience {
    allowance: Allowance,
    since: Option<Instant>,
    over: Pin<Box<Sleep>>,
}

impl Patience {
    /// Creates a clock with these limits on a pause and on the total waiting time.
    pub(crate) fn new(pause: Duration, total: Duration) -> Self {
        Self { allowance: Allowance::new(pause, total), since: None, over: Box::pin(sleep(pause)) }
    }

    /// Waits for the client. Ready when a limit is reached.
    pub(crate) fn poll_over(&mut self, context: &mut Context<'_>) -> Poll<TooSlow> {
        if self.since.is_none() {
            let now = Instant::now();
            self.since = Some(now);
            self.over.as_mut().reset(now + self.allowance.left());
        }
        self.over.as_mut().poll(context).map(|()| {
            if self.allowance.total > self.allowance.credit {
                TooSlow::Speed
            } else {
                TooSlow::Total
            }
        })
    }

    /// Notes that the client sent or read so many bytes.
    pub(crate) fn came(&mut self, bytes: usize) {
        if let Some(since) = self.since.take() {
            self.allowance.waited(since.elapsed());
        }
        self.allowance.came(bytes);
    }

    /// Starts another body.
    pub(crate) fn restart(&mut self, total: Duration) {
        self.allowance.total = total;
    }
}

/// Limit that a client exceeded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum TooSlow {
    /// The client paused, or was slower than [`LEAST_SPEED`].
    Speed,
    /// The whole body took too long.
    Total,
}

impl fmt::Display for TooSlow {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let pause = PAUSE.as_secs();
        match self {
            Self::Speed => write!(
                f,
                "the body arrives too slowly; send it without pauses of more than {pause} s and with at least \
                 {LEAST_SPEED} bytes per second on average"
            ),
            Self::Total => f.write_str(
                "the body takes too long to arrive; send less at a time, or send it faster",
            ),
        }
    }
}

impl std::error::Error for TooSlow {}

/// Returns the limit if a body failed because its client was too slow.
pub(crate) fn too_slow(cause: &axum::Error) -> Option<TooSlow> {
    let mut cause: Option<&(dyn std::error::Error + 'static)> = Some(cause);
    while let Some(this) = cause {
        if let Some(slow) = this.downcast_ref::<TooSlow>() {
            return Some(*slow);
        }
        cause = this.source();
    }
    None
}

/// Middleware: watches the speed of a request body.
pub(crate) async fn watch(request: Request, next: Next) -> Response {
    let total = if request.uri().path().starts_with(STREAMED) { STREAM } else { WHOLE_BODY };
    next.run(request.map(|body| Body::new(Watched { body, patience: Patience::new(PAUSE, total) })))
        .await
}

/// A body that fails if its client is too slow.
struct Watched {
    body: Body,
    patience: Patience,
}

impl HttpBody for Watched {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        match Pin::new(&mut self.body).poll_frame(context) {
            Poll::Pending => {
                self.patience.poll_over(context).map(|slow| Some(Err(axum::Error::new(slow))))
            }
            Poll::Ready(frame) => {
                let bytes = frame
                    .as_ref()
                    .and_then(|frame| frame.as_ref().ok()?.data_ref())
                    .map_or(0, Bytes::len);
                self.patience.came(bytes);
                Poll::Ready(frame)
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

#[cfg(test)]
mod tests {
    use futures::StreamExt;

    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn a_pause_is_allowed_and_a_drip_is_not() {
        let mut fast = Allowance::new(PAUSE, WHOLE_BODY);
        fast.waited(29 * SECOND);
        fast.came(64 << 10);
        assert_eq!(fast.credit, PAUSE, "who sends much may pause again");
        let mut drip = Allowance::new(PAUSE, WHOLE_BODY);
        for _ in 0..2 {
            drip.waited(15 * SECOND);
            drip.came(1);
        }
        assert!(drip.left() < SECOND, "{drip:?}");
    }

    #[test]
    fn a_body_that_keeps_to_the_least_speed_has_an_end_too() {
        let mut slow = Allowance::new(PAUSE, WHOLE_BODY);
        let mut seconds = 0;
        while !slow.left().is_zero() {
            slow.waited(SECOND);
            slow.came(LEAST_SPEED as usize);
            seconds += 1;
        }
        assert_eq!(Duration::from_secs(seconds), WHOLE_BODY);
    }

    #[tokio::test]
    async fn a_body_that_stops_coming_fails_and_says_why() {
        let pieces = futures::stream::iter([Ok::<_, std::io::Error>(Bytes::from_static(b"{"))]);
        let body = Body::from_stream(pieces.chain(futures::stream::pending()));
        let patience = Patience::new(Duration::from_millis(20), WHOLE_BODY);
        let mut frames = Body::new(Watched { body, patience }).into_data_stream();
        assert_eq!(frames.next().await.unwrap().unwrap(), "{");
        let cause = frames.next().await.unwrap().unwrap_err();
        assert_eq!(too_slow(&cause), Some(TooSlow::Speed));
        assert_eq!(too_slow(&axum::Error::new(std::io::Error::other("reset"))), None);
    }
}
