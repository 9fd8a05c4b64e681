//! Many runs at a time. A world lives in one thread, so runs share nothing but the list of what is to be done.

use std::num::NonZero;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};
use std::thread;

/// How many at a time, unless told.
pub(super) fn jobs(asked: Option<usize>) -> usize {
    let processors = thread::available_parallelism().map_or(1, NonZero::get);
    asked.unwrap_or(processors).max(1)
}

/// What `act` answers to each item, in the order of the items. No further one is begun once `enough` answers true.
pub(super) fn map<T: Sync, R: Send>(
    items: &[T],
    jobs: usize,
    act: impl Fn(&T) -> R + Sync,
    enough: impl Fn(&R) -> bool + Sync,
) -> Vec<R> {
    let next = AtomicUsize::new(0);
    let answers = Mutex::new(Vec::new());
    let work = || {
        while let Some((index, item)) = take(&next, items) {
            let answer = act(item);
            if enough(&answer) {
                next.store(items.len(), Ordering::Relaxed);
            }
            let mut answers = answers.lock().unwrap_or_else(PoisonError::into_inner);
            answers.push((index, answer));
        }
    };
    thread::scope(|scope| {
        for _ in 1..jobs {
            scope.spawn(work);
        }
        work();
    });
    let mut answers = answers.into_inner().unwrap_or_else(PoisonError::into_inner);
    answers.sort_unstable_by_key(|(index, _)| *index);
    answers.into_iter().map(|(_, answer)| answer).collect()
}

fn take<'a, T>(next: &AtomicUsize, items: &'a [T]) -> Option<(usize, &'a T)> {
    let index = next.fetch_add(1, Ordering::Relaxed);
    items.get(index).map(|item| (index, item))
}

/// Seconds that this thread ran on a processor; 0 where the kernel does not say.
pub(super) fn cpu_seconds() -> f64 {
    let stat = std::fs::read_to_string("/proc/thread-self/schedstat").unwrap_or_default();
    let nanoseconds = stat.split_whitespace().next();
    nanoseconds
        .and_then(|text| text.parse::<f64>().ok())
        .map_or(0.0, |nanoseconds| nanoseconds / 1e9)
}

/// What `act` answers, and the seconds of a processor that it took.
pub(super) fn timed<R>(act: impl FnOnce() -> R) -> (R, f64) {
    let before = cpu_seconds();
    let answer = act();
    (answer, cpu_seconds() - before)
}

#[cfg(test)]
mod tests {
    #[test]
    fn answers_come_in_the_order_of_the_items() {
        let items: Vec<u32> = (0..100).collect();
        let answers = super::map(&items, 3, |item| item * 2, |_| false);
        assert!(answers.iter().zip(&items).all(|(a, i)| *a == i * 2));
        assert_eq!(answers.len(), items.len());
    }

    #[test]
    fn enough_ends_the_work() {
        let items: Vec<u32> = (0..100).collect();
        let answers = super::map(&items, 1, |item| *item, |answer| *answer == 4);
        assert_eq!(answers, [0, 1, 2, 3, 4]);
    }
}
