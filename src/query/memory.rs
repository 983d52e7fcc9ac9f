//! Memory of statements and exports. Each kind has a budget of its own, which is shared among
//! organisations.
//!
//! The statements of an organisation together take at most half of what the others leave of a
//! budget, so that some is left for the next one: one organisation alone gets a half, a second one
//! a quarter, and so on. The operator gets seven eighths of what the others leave. Within an
//! organisation, consumers that can spill share evenly what its other consumers leave, as in
//! DataFusion's own fair pool. A consumer that holds little gains nothing by spilling it, so its
//! first batch may exceed its share while a quarter of the budget stays free.
//!
//! First batches, rows that a step keeps, and reads of files may exceed the share of their owner.
//! That excess takes nothing from the shares of others, so all of them together may exceed the
//! budget by as much.
//!
//! Maintenance has no budget: it limits what it opens before it opens it, and runs one task at a
//! time.

use std::cmp::Reverse;
use std::collections::HashMap;
use std::fmt;
use std::num::NonZeroUsize;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use arrow::buffer::Buffer;
use bytes::Bytes;
use datafusion::common::{DataFusionError, Result};
use datafusion::execution::memory_pool::{
    MemoryConsumer, MemoryLimit, MemoryPool, MemoryReservation, TrackConsumersPool,
};
use parking_lot::Mutex;

/// Maximum number of consumers that an error names.
const TOP: NonZeroUsize = NonZeroUsize::MIN.saturating_add(4);
/// Factor of the budget beyond which reads of files are refused. Up to it they are only counted: a
/// reader cannot spill, and other consumers make room for it.
const MAX_OVERDRAWN: usize = 2;

/// Owner of memory: an organisation, or `None` for the operator.
pub(super) type Owner = Option<String>;

/// Returns the bytes that an owner may take of a total, if others use `others`.
pub(super) fn allowance(owner: &Owner, total: u64, others: u64) -> u64 {
    let left = total.saturating_sub(others);
    match owner {
        Some(_) => left / 2,
        None => left - left / 8,
    }
}

/// Memory that statements share.
#[derive(Debug)]
pub(super) struct MemoryBudget {
    /// Setting that the budget comes from.
    pub(super) setting: &'static str,
    total: usize,
    /// True if consumers that cannot spill may take the whole budget while nobody else uses it: so
    /// a giant row passes for which half of the budget is too little.
    whole_if_alone: bool,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    used: usize,
    accounts: HashMap<Owner, Account>,
}

/// Memory of one owner.
#[derive(Debug, Default)]
struct Account {
    /// Bytes of consumers that cannot spill, and of those that can.
    fixed: usize,
    spillable: usize,
    /// Number of consumers that can spill.
    spillers: usize,
    /// Number of running statements.
    statements: usize,
}

impl Account {
    fn used(&self) -> usize {
        self.fixed + self.spillable
    }
}

impl State {
    /// Returns the bytes that others hold, without what exceeds their shares. Shares are those in
    /// which the largest came first, so that all of them together leave something.
    fn shares_of_others(&self, owner: &Owner, total: u64) -> u64 {
        let others = self.accounts.iter().filter(|(other, _)| *other != owner);
        let mut others: Vec<_> = others.map(|(other, account)| (other, account.used())).collect();
        others.sort_unstable_by_key(|(_, used)| Reverse(*used));
        others.into_iter().fold(0, |counted, (other, used)| {
            counted + (used as u64).min(allowance(other, total, counted))
        })
    }
}

impl MemoryBudget {
    pub(super) fn new(setting: &'static str, bytes: u64) -> Arc<Self> {
        let total = usize::try_from(bytes).unwrap_or(usize::MAX);
        Arc::new(Self { setting, total, whole_if_alone: false, state: Mutex::default() })
    }

    /// Creates a budget for exports. There are few of them, and each must be able to process the
    /// largest row.
    pub(super) fn for_exports(setting: &'static str, bytes: u64) -> Arc<Self> {
        let total = usize::try_from(bytes).unwrap_or(usize::MAX);
        Arc::new(Self { setting, total, whole_if_alone: true, state: Mutex::default() })
    }

    /// Returns the pool of one statement of an owner, which adds up in `held` what the statement
    /// holds. Errors of the pool name its largest consumers.
    pub(super) fn pool(
        self: &Arc<Self>,
        owner: Owner,
        held: Arc<AtomicUsize>,
    ) -> Arc<dyn MemoryPool> {
        self.state.lock().accounts.entry(owner.clone()).or_default().statements += 1;
        let pool = StatementPool { budget: Arc::clone(self), owner, held };
        Arc::new(TrackConsumersPool::new(pool, TOP))
    }

    /// Size of the budget in bytes.
    pub(super) fn total(&self) -> u64 {
        self.total as u64
    }

    /// Returns the bytes that an owner may take in total at the moment.
    pub(super) fn allowance(&self, owner: &Owner) -> u64 {
        let others = self.state.lock().shares_of_others(owner, self.total as u64);
        allowance(owner, self.total as u64, others)
    }
}

/// Pool of one statement, which is charged to the account of its owner.
#[derive(Debug)]
struct StatementPool {
    budget: Arc<MemoryBudget>,
    owner: Owner,
    held: Arc<AtomicUsize>,
}

impl StatementPool {
    fn with<T>(&self, work: impl FnOnce(&mut usize, &mut Account) -> T) -> T {
        self.in_state(&mut self.budget.state.lock(), work)
    }

    fn in_state<T>(
        &self,
        state: &mut State,
        work: impl FnOnce(&mut usize, &mut Account) -> T,
    ) -> T {
        let State { used, accounts } = state;
        // The account stays until its last statement ends, and this is one of them.
        work(used, accounts.entry(self.owner.clone()).or_default())
    }
}

impl Drop for StatementPool {
    fn drop(&mut self) {
        let mut state = self.budget.state.lock();
        if let Some(account) = state.accounts.get_mut(&self.owner) {
            account.statements = account.statements.saturating_sub(1);
            if account.statements == 0 {
                state.accounts.remove(&self.owner);
            }
        }
    }
}

impl fmt::Display for StatementPool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} of {} bytes", self.budget.setting, self.budget.total)
    }
}

impl MemoryPool for StatementPool {
    fn name(&self) -> &str {
        "statement"
    }

    fn register(&self, consumer: &MemoryConsumer) {
        if consumer.can_spill() {
            self.with(|_, account| account.spillers += 1);
        }
    }

    fn unregister(&self, consumer: &MemoryConsumer) {
        if consumer.can_spill() {
            self.with(|_, account| account.spillers = account.spillers.saturating_sub(1));
        }
    }

    fn grow(&self, reservation: &MemoryReservation, additional: usize) {
        self.held.fetch_add(additional, Ordering::Relaxed);
        self.with(|used, account| {
            *used += additional;
            if reservation.consumer().can_spill() {
                account.spillable += additional;
            } else {
                account.fixed += additional;
            }
        });
    }

    fn shrink(&self, reservation: &MemoryReservation, less: usize) {
        self.held.fetch_sub(less, Ordering::Relaxed);
        self.with(|used, account| {
            *used = used.saturating_sub(less);
            let of_kind = if reservation.consumer().can_spill() {
                &mut account.spillable
            } else {
                &mut account.fixed
            };
            *of_kind = of_kind.saturating_sub(less);
        });
    }

    fn try_grow(&self, reservation: &MemoryReservation, additional: usize) -> Result<()> {
        let total = self.budget.total;
        let mut state = self.budget.state.lock();
        let others = state.shares_of_others(&self.owner, total as u64);
        let granted = self.in_state(&mut state, |used, account| {
            let most = allowance(&self.owner, total as u64, others);
            let most =
                if self.budget.whole_if_alone && others == 0 && !reservation.consumer().can_spill()
                {
                    total
                } else {
                    usize::try_from(most).unwrap_or(usize::MAX)
                };
            let free = most.saturating_sub(account.used());
            let fits = if !reservation.consumer().can_spill() {
                additional <= free
            } else {
                let each = most.saturating_sub(account.fixed) / account.spillers.max(1);
                let held = reservation.size();
                // A step that holds little gains nothing by spilling it, so it may exceed its share
                // for its first batch.
                let is_first = held <= additional / 8;
                (is_first && leaves_a_quarter(total, *used, additional))
                    || (additional <= free && held.saturating_add(additional) <= each)
            };
            if fits {
                *used += additional;
                if reservation.consumer().can_spill() {
                    account.spillable += additional;
                } else {
                    account.fixed += additional;
                }
            }
            fits
        });
        drop(state);
        if !granted {
            return Err(refused(&self.budget, reservation, additional));
        }
        self.held.fetch_add(additional, Ordering::Relaxed);
        Ok(())
    }

    fn reserved(&self) -> usize {
        self.budget.state.lock().used
    }

    fn memory_limit(&self) -> MemoryLimit {
        MemoryLimit::Finite(self.budget.total)
    }
}

fn refused(
    budget: &MemoryBudget,
    reservation: &MemoryReservation,
    additional: usize,
) -> DataFusionError {
    DataFusionError::ResourcesExhausted(format!(
        "{} needs {additional} bytes beside the {} that it has; `{}` is {} bytes for all",
        reservation.consumer().name(),
        reservation.size(),
        budget.setting,
        budget.total
    ))
}

/// Counts bytes that were read for a statement. Returns an error if the pool holds far more than
/// its budget.
pub(super) fn count_read(pool: &Arc<dyn MemoryPool>, bytes: usize) -> Result<MemoryReservation> {
    let reservation = MemoryConsumer::new("reading").register(pool);
    let MemoryLimit::Finite(total) = pool.memory_limit() else { return Ok(reservation) };
    if reservation.try_grow(bytes).is_err() {
        if pool.reserved().saturating_add(bytes) > total.saturating_mul(MAX_OVERDRAWN) {
            return Err(DataFusionError::ResourcesExhausted(format!(
                "{bytes} bytes of files cannot be read beside {} that are in use of {total}",
                pool.reserved()
            )));
        }
        reservation.grow(bytes);
    }
    Ok(reservation)
}

/// Counts the bytes of rows that a step keeps and does not count itself. Such a step cannot spill,
/// so it may exceed the share of its owner while a quarter of the budget stays free.
fn count_kept(pool: &Arc<dyn MemoryPool>, bytes: usize) -> Result<MemoryReservation> {
    let reservation = MemoryConsumer::new("kept rows").register(pool);
    let may_exceed_share = match pool.memory_limit() {
        MemoryLimit::Finite(total) => leaves_a_quarter(total, pool.reserved(), bytes),
        _ => true,
    };
    if may_exceed_share {
        reservation.grow(bytes);
    } else {
        reservation.try_grow(bytes)?;
    }
    Ok(reservation)
}

/// Returns true if a quarter of a budget is still free after `additional` bytes. What exceeds the
/// share of its owner keeps to this: so a second owner's share is still within the budget.
fn leaves_a_quarter(total: usize, used: usize, additional: usize) -> bool {
    used.saturating_add(additional) <= total / 4 * 3
}

/// Bytes that count until their last clone is dropped.
struct Kept {
    bytes: Buffer,
    _counted: Arc<MemoryReservation>,
}

impl AsRef<[u8]> for Kept {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

/// Counts buffers until the last clone of any of them is dropped.
pub(super) fn counted(pool: &Arc<dyn MemoryPool>, buffers: &[Buffer]) -> Result<Vec<Buffer>> {
    let bytes = buffers.iter().map(Buffer::capacity).sum();
    let counted = Arc::new(count_kept(pool, bytes)?);
    let count = |bytes: &Buffer| {
        let kept = Kept { bytes: bytes.clone(), _counted: Arc::clone(&counted) };
        Buffer::from(Bytes::from_owner(kept))
    };
    Ok(buffers.iter().map(count).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn consumer(pool: &Arc<dyn MemoryPool>, can_spill: bool) -> MemoryReservation {
        MemoryConsumer::new("test").with_can_spill(can_spill).register(pool)
    }

    fn pool(budget: &Arc<MemoryBudget>, owner: Owner) -> Arc<dyn MemoryPool> {
        budget.pool(owner, Arc::default())
    }

    fn organisation(name: &str) -> Owner {
        Some(name.to_owned())
    }

    #[test]
    fn an_organisation_takes_half_of_what_the_others_leave() {
        let budget = MemoryBudget::new("query_memory_bytes", 1_000);
        let pools: Vec<_> =
            ["acme", "acme", "zen", "late"].map(|name| pool(&budget, organisation(name))).into();
        let held: Vec<_> = pools.iter().map(|pool| consumer(pool, false)).collect();
        held[0].try_grow(400).unwrap();
        assert!(held[1].try_grow(101).is_err(), "its statements share one half");
        held[1].try_grow(100).unwrap();
        held[2].try_grow(250).unwrap();
        assert!(held[2].try_grow(1).is_err());
        held[3].try_grow(125).unwrap();
        let error = held[3].try_grow(1).unwrap_err().to_string();
        assert!(error.contains("`query_memory_bytes` is 1000 bytes"), "{error}");
        drop(held);
        drop(pools);
        assert_eq!(budget.state.lock().used, 0);
        assert!(budget.state.lock().accounts.is_empty(), "accounts without statements are removed");
    }

    #[test]
    fn a_giant_row_of_an_export_takes_all_while_nobody_else_is_there() {
        let budget = MemoryBudget::for_exports("export_memory_bytes", 1_000);
        let acme = pool(&budget, organisation("acme"));
        let zen = pool(&budget, organisation("zen"));
        let giant = consumer(&acme, false);
        let sorting = consumer(&acme, true);
        let other = consumer(&zen, false);
        assert!(sorting.try_grow(751).is_err(), "a first batch leaves a quarter of the budget");
        giant.try_grow(1_000).unwrap();
        giant.shrink(900);
        other.try_grow(100).unwrap();
        assert!(giant.try_grow(400).is_err(), "the other has a part of it");
    }

    #[test]
    fn the_operator_leaves_an_eighth() {
        let budget = MemoryBudget::new("query_memory_bytes", 800);
        let operator = pool(&budget, None);
        let acme = pool(&budget, organisation("acme"));
        let a = consumer(&operator, false);
        let b = consumer(&acme, false);
        assert!(a.try_grow(701).is_err());
        a.try_grow(700).unwrap();
        assert!(b.try_grow(51).is_err());
        b.try_grow(50).unwrap();
        assert_eq!(budget.allowance(&None), 657);
    }

    #[test]
    fn consumers_that_spill_divide_evenly_what_the_others_leave() {
        let budget = MemoryBudget::new("query_memory_bytes", 1_000);
        let pool = pool(&budget, organisation("acme"));
        let fixed = consumer(&pool, false);
        fixed.try_grow(100).unwrap();
        let one = consumer(&pool, true);
        let two = consumer(&pool, true);
        one.try_grow(200).unwrap();
        assert!(one.try_grow(1).is_err());
        assert!(two.try_grow(451).is_err(), "a first batch leaves a quarter of the budget");
        two.try_grow(450).unwrap();
        assert!(two.try_grow(1).is_err());
        two.free();
        two.try_grow(200).unwrap();
        drop(two);
        one.try_grow(200).unwrap();
        one.free();
        drop(fixed);
        one.try_grow(500).unwrap();
    }

    #[test]
    fn what_exceeds_a_share_takes_nothing_from_the_shares_of_others() {
        let budget = MemoryBudget::new("query_memory_bytes", 1_000);
        let pools = ["acme", "zen", "late"].map(|name| pool(&budget, organisation(name)));
        let [acme, zen, late] = &pools;
        let kept = count_kept(acme, 750).unwrap();
        let read = count_read(acme, 900).unwrap();
        assert_eq!(budget.state.lock().used, 1_650);
        assert!(consumer(acme, false).try_grow(1).is_err(), "its own share is used up");
        for can_spill in [true, false] {
            let held = consumer(zen, can_spill);
            held.try_grow(250).unwrap();
            assert!(held.try_grow(1).is_err());
            let last = consumer(late, can_spill);
            last.try_grow(125).unwrap();
            assert!(last.try_grow(1).is_err());
        }
        // Others that exceed their shares as well do not change that.
        let read_by_zen = count_read(zen, 350).unwrap();
        consumer(late, true).try_grow(125).unwrap();
        assert_eq!(budget.allowance(&organisation("late")), 125);
        assert!(count_read(zen, 1).is_err(), "all of it is at most twice the budget");
        drop((kept, read, read_by_zen));
        assert_eq!(budget.allowance(&organisation("late")), 500);
    }

    #[test]
    fn reading_counts_and_is_refused_at_twice_the_total() {
        let budget = MemoryBudget::new("query_memory_bytes", 1_000);
        let pool = pool(&budget, organisation("acme"));
        let first = count_read(&pool, 1_500).unwrap();
        assert!(count_read(&pool, 501).is_err());
        assert!(consumer(&pool, true).try_grow(1).is_err(), "the others make room");
        drop(first);
        count_read(&pool, 501).unwrap();
    }
}
