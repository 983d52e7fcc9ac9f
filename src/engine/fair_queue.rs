//! Queue of appends that wait for the writer. Organisations take turns, so that one with many large
//! appends does not delay the others by more than a group.

use std::collections::VecDeque;

use tokio::sync::mpsc;

use crate::limits::Holder;

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

    /// Takes one append of each organisation in turn, until the group has at least `bytes`.
    /// `None` if nothing waits.
    pub(super) fn take_group(&mut self, bytes: usize) -> Option<Vec<T>> {
        let mut group = Vec::new();
        let mut weight = 0;
        while weight < bytes
            && let Some((holder, mut queue)) = self.queues.pop_front()
        {
            if let Some(append) = queue.pop_front() {
                weight += append.weight();
                group.push(append);
            }
            if !queue.is_empty() {
                self.queues.push_back((holder, queue));
            }
        }
        (!group.is_empty()).then_some(group)
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
