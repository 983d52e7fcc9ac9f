//! Tokens of a call, by kind.

/// Tokens of a call; `None` if the reply does not state them.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(in crate::ingest) struct Usage {
    pub(in crate::ingest) request: Option<i64>,
    pub(in crate::ingest) response: Option<i64>,
    pub(in crate::ingest) total: Option<i64>,
    /// Further values that the price depends on.
    pub(in crate::ingest) billed: Billed,
}

/// Values on which the price of a call depends, in addition to its model and the number of its
/// tokens.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Billed {
    /// Tokens that have prices of their own.
    pub parts: Parts,
    /// Service tier of the call.
    pub tier: Tier,
    /// True if the call has charges that the counts do not show: tokens of an unknown kind,
    /// searches, or a surcharge for a region.
    pub is_partial: bool,
    /// Cost that the reply states, in US cents.
    pub stated_cents: Option<f64>,
}

/// Tokens that have prices of their own. The kinds are disjoint.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Parts {
    /// Request tokens that were read from the provider's cache, without audio.
    pub cache_read: i64,
    /// Request tokens that were written to the cache for minutes.
    pub cache_write: i64,
    /// Request tokens that were written to the cache for an hour.
    pub cache_write_1h: i64,
    /// Request tokens of audio, without those read from the cache.
    pub audio_input: i64,
    /// Request tokens of audio that were read from the cache.
    pub audio_cache_read: i64,
    /// Request tokens that the provider's tools put into the prompt.
    pub tool_use: i64,
    /// Response tokens of the model's reasoning.
    pub reasoning: i64,
    /// Response tokens of audio.
    pub audio_output: i64,
    /// Response tokens of images.
    pub image_output: i64,
}

impl Parts {
    /// Returns the number of request tokens that have prices of their own.
    pub fn request_units(&self) -> i64 {
        let audio = self.audio_input.saturating_add(self.audio_cache_read);
        self.cached().saturating_add(audio).saturating_add(self.tool_use)
    }

    /// Returns the number of request tokens that were read from or written to the cache, without
    /// audio.
    pub(in crate::ingest) fn cached(&self) -> i64 {
        self.cache_read.saturating_add(self.cache_write).saturating_add(self.cache_write_1h)
    }

    pub(super) fn plus(self, other: Self) -> Self {
        Self {
            cache_read: self.cache_read.saturating_add(other.cache_read),
            cache_write: self.cache_write.saturating_add(other.cache_write),
            cache_write_1h: self.cache_write_1h.saturating_add(other.cache_write_1h),
            audio_input: self.audio_input.saturating_add(other.audio_input),
            audio_cache_read: self.audio_cache_read.saturating_add(other.audio_cache_read),
            tool_use: self.tool_use.saturating_add(other.tool_use),
            reasoning: self.reasoning.saturating_add(other.reasoning),
            audio_output: self.audio_output.saturating_add(other.audio_output),
            image_output: self.image_output.saturating_add(other.image_output),
        }
    }

    /// Returns the number of response tokens that have prices of their own.
    pub fn response_units(&self) -> i64 {
        self.reasoning.saturating_add(self.audio_output).saturating_add(self.image_output)
    }
}

/// Service tier of a call, which multiplies list prices.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Tier {
    /// The tier of the list prices.
    #[default]
    Standard,
    /// Slower at a lower price.
    Flex,
    /// Answered within hours.
    Batch,
    /// Priority, reserved throughput and others, whose prices follow no rule.
    Other,
}

impl Tier {
    pub(super) fn parse(name: &str) -> Self {
        match name.trim().to_ascii_lowercase().replace('-', "_").as_str() {
            ""
            | "default"
            | "standard"
            | "auto"
            | "standard_only"
            | "on_demand"
            | "traffic_type_unspecified" => Self::Standard,
            "flex" => Self::Flex,
            "batch" => Self::Batch,
            _ => Self::Other,
        }
    }
}

impl Usage {
    pub(super) fn plus(self, other: Self) -> Self {
        let sum = |one: Option<i64>, other: Option<i64>| match (one, other) {
            (Some(one), Some(other)) => Some(one.saturating_add(other)),
            (one, other) => one.or(other),
        };
        let one = self.billed;
        let two = other.billed;
        Self {
            request: sum(self.request, other.request),
            response: sum(self.response, other.response),
            total: sum(self.total, other.total),
            billed: Billed {
                parts: one.parts.plus(two.parts),
                tier: two.tier,
                is_partial: one.is_partial || two.is_partial || one.tier != two.tier,
                stated_cents: None,
            },
        }
    }

    /// Returns the usage with the counts of a source that counted by itself, unless both state the
    /// same total.
    pub(in crate::ingest) fn with_counts(
        self,
        request: Option<i64>,
        response: Option<i64>,
        total: Option<i64>,
    ) -> Self {
        if total.is_some()
            && total == self.total
            && self.request.is_some()
            && self.response.is_some()
        {
            return self;
        }
        let request = request.or(self.request);
        let response = response.or(self.response);
        let total = total.or(self.total);
        let mut usage = Self { request, response, total, billed: self.billed };
        usage.settle(self.billed.parts.cached(), self.billed.parts.reasoning);
        usage
    }

    /// Makes request, response and total agree. `cached` and `reasoning` are tokens that the source
    /// may have left out of its counts. The total shows this; without a total, a part that is
    /// larger than its whole does.
    pub(super) fn settle(&mut self, cached: i64, reasoning: i64) {
        match (self.request, self.response, self.total) {
            (Some(request), Some(response), Some(total)) => {
                let sum = request.saturating_add(response);
                let left_out = [(0, 0), (0, reasoning), (cached, 0), (cached, reasoning)];
                let fits = |(cached, reasoning): &(i64, i64)| {
                    sum.saturating_add(*cached).saturating_add(*reasoning) == total
                };
                match left_out.into_iter().find(fits) {
                    Some((cached, reasoning)) => {
                        self.request = Some(request.saturating_add(cached));
                        self.response = Some(response.saturating_add(reasoning));
                    }
                    None if total > sum => self.billed.is_partial = true,
                    None => self.total = Some(sum),
                }
            }
            (Some(request), Some(response), None) => {
                let request =
                    if cached > request { request.saturating_add(cached) } else { request };
                let response = if reasoning > response {
                    response.saturating_add(reasoning)
                } else {
                    response
                };
                self.request = Some(request);
                self.response = Some(response);
                self.total = request.checked_add(response);
            }
            (None, Some(response), Some(total)) => {
                self.request = total.checked_sub(response).filter(|rest| *rest >= 0)
            }
            _ => {}
        }
    }
}
