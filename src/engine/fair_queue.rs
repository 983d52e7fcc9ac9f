//! Queue of appends that wait for the writer. Organisations take turns, so that one with many large
//! appends does not delay the others by more than a group. A small append joins the next group even
//! if large ones fill it.

use std::collections::VecDeque;

use tokio::sync::mpsc;

use crate::limits::Holder;

/// Largest fraction (1/n) of a group that counts as a small append.
const SMALL_IN_GROUP: usize = 64;

/// An append of the queue.
pub(super) trait Queued: Sized {
    /// Commands of the channel that appends arrive in.
    type Command;

    /// Takes the append out of a command, or returns the command if it is of another kind.
    fn from_command(command: Self::Command) -> Result<Self, Self::Command>;

    /// Returns the organisation whose turn the append takes.
    fn holder(&self) -> &Holder;

    /// Returns the bytes that the append counts in a group.
    fn weight(&self) -> usize;
}

/// Waiting appends of each organisation, in order of arrival.
#[derive(Debug)]
pub(super) struct FairQueue<T> {
    /// The organisation in front is next.
    queues: VecDeque<(Holder, VecDeque<T>)>,
}

impl<T: Queued> FairQueue<T> {
    pub(super) fn new(first: T) -> Self {
        let holder = first.holder().clone();
        Self { queues: VecDeque::from([(holder, VecDeque::from([first]))]) }
    }

    /// Moves the appends that were sent since into the queue. Returns the first command of another
    /// kind, which must follow the appends before it; later commands stay in the channel.
    pub(super) fn fill(
        &mut self,
        commands: &mut mpsc::UnboundedReceiver<T::Command>,
    ) -> Option<T::Command> {
        while let Ok(command) = commands.try_recv() {
            match T::from_command(command) {
                Ok(append) => self.push(append),
                Err(other) => return Some(other),
            }
        }
        None
    }

    fn push(&mut self, append: T) {
        match self.queues.iter_mut().find(|(holder, _)| holder == append.holder()) {
            Some((_, queue)) => queue.push_back(append),
            None => self.queues.push_back((append.holder().clone(), VecDeque::from([append]))),
        }
    }

    /// Takes one append of each organisation in turn, until the group has at least `bytes`, and then
    /// a small one of each organisation that had no turn. `None` if nothing waits.
    pub(super) fn take_group(&mut self, bytes: usize) -> Option<Vec<T>> {
        let mut group = Vec::new();
        let mut weight = 0;
        let mut without_turn = self.queues.len();
        while weight < bytes
            && let Some((holder, mut queue)) = self.queues.pop_front()
        {
            without_turn = without_turn.saturating_sub(1);
            if let Some(append) = queue.pop_front() {
                weight += append.weight();
                group.push(append);
            }
            if !queue.is_empty() {
                self.queues.push_back((holder, queue));
            }
        }
        self.join_small(&mut group, without_turn, bytes);
        (!group.is_empty()).then_some(group)
    }

    /// Adds the next append of each of the first organisations if it is small, up to `bytes`
    /// altogether.
    fn join_small(&mut self, group: &mut Vec<T>, organisations: usize, bytes: usize) {
        let mut left = bytes;
        for (_, queue) in self.queues.iter_mut().take(organisations) {
            let small =
                queue.pop_front_if(|append| append.weight() <= (bytes / SMALL_IN_GROUP).min(left));
            left -= small.as_ref().map_or(0, Queued::weight);
            group.extend(small);
        }
        self.queues.retain(|(_, queue)| !queue.is_empty());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Fake(Holder, u32, usize);

    impl Queued for Fake {
        type Command = &'static str;

        fn from_command(command: Self::Command) -> Result<Self, Self::Command> {
            Err(command)
        }

        fn holder(&self) -> &Holder {
            &self.0
        }

        fn weight(&self) -> usize {
            self.2
        }
    }

    fn fake(organisation: &str, number: u32, bytes: usize) -> Fake {
        Fake(Holder::new(Some(organisation)), number, bytes)
    }

    fn numbers(group: Option<Vec<Fake>>) -> Vec<u32> {
        group.into_iter().flatten().map(|fake| fake.1).collect()
    }

    #[test]
    fn an_append_waits_for_one_group_however_much_another_organisation_has_sent() {
        let mut queue = FairQueue::new(fake("acme", 0, 10));
        (1..50).for_each(|number| queue.push(fake("acme", number, 10)));
        assert_eq!(numbers(queue.take_group(30)), [0, 1, 2]);
        queue.push(fake("zen", 100, 1));
        queue.push(fake("zen", 101, 1));
        assert_eq!(numbers(queue.take_group(30)), [3, 100, 4, 101, 5]);
        let mut rest = Vec::new();
        while let Some(group) = queue.take_group(30) {
            rest.extend(numbers(Some(group)));
        }
        assert_eq!(rest, (6..50).collect::<Vec<_>>(), "each organisation keeps its order");
    }

    #[test]
    fn a_small_append_joins_a_group_that_large_ones_fill() {
        let mut queue = FairQueue::new(fake("acme", 0, 1_000));
        [fake("acme", 1, 1_000), fake("large", 2, 500), fake("zen", 3, 10), fake("zen", 4, 10)]
            .into_iter()
            .for_each(|append| queue.push(append));
        (10..200).for_each(|number| queue.push(fake(&format!("one of many {number}"), number, 15)));
        let first = numbers(queue.take_group(1_000));
        assert_eq!(
            first[..2],
            [0, 3],
            "zen does not wait for another group, the large append does"
        );
        let small: u32 = 15;
        assert_eq!(
            first.len() - 2,
            (1_000 - 10) / small as usize,
            "the small ones are bounded too"
        );
        assert_eq!(numbers(queue.take_group(1_000))[..2], [2, 4]);
        let mut rest = 0;
        while let Some(group) = queue.take_group(1_000) {
            rest += group.len();
        }
        assert!(rest > 0 && queue.queues.is_empty());
    }

    #[test]
    fn a_command_of_another_kind_ends_the_filling() {
        let (sender, mut commands) = mpsc::unbounded_channel();
        sender.send("freeze").unwrap();
        sender.send("close").unwrap();
        let mut queue = FairQueue::new(fake("acme", 0, 10));
        assert_eq!(queue.fill(&mut commands), Some("freeze"));
        assert_eq!(queue.fill(&mut commands), Some("close"));
        assert!(queue.fill(&mut commands).is_none());
        assert_eq!(numbers(queue.take_group(1)), [0]);
        assert!(queue.take_group(1).is_none());
    }
}
