//! What is done to rows one by one and takes long: on all threads, and on those of other processes with the same rows.

use crate::{Error, Result};
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::thread::{Scope, ScopedJoinHandle};

/// Processes that read the same rows: each tokenises some of them, and tells the others what came of it.
pub trait Together {
    /// Which of them this is, counted from 0.
    fn rank(&self) -> usize;

    /// How many there are.
    fn size(&self) -> usize;

    /// What every process says here, by rank; all of them call it equally often.
    ///
    /// # Errors
    /// One of them is gone, in words for people.
    fn all(&self, mine: &[u8]) -> std::result::Result<Vec<Vec<u8>>, String>;
}

/// Rows of a batch, for each process.
const BATCH: usize = 1024;

/// Things that come one at a time and are worked on a batch at a time: while threads are at one batch, the next comes.
/// Each has a key, which stays here.
pub(crate) struct Batches<'scope, 'env, K, I, O> {
    scope: &'scope Scope<'scope, 'env>,
    work: &'env (dyn Fn(I) -> O + Sync),
    together: Option<&'env dyn Together>,
    threads: usize,
    waiting: Vec<(K, I)>,
    /// Keys of the batch that is worked on, and what this process does of it: a share a thread.
    keys: Vec<K>,
    running: Vec<ScopedJoinHandle<'scope, Vec<O>>>,
}

impl<'scope, 'env, K, I, O> Batches<'scope, 'env, K, I, O>
where
    I: Send + 'scope,
    O: Serialize + DeserializeOwned + Send + 'scope,
{
    /// Before the first thing.
    pub(crate) fn new(
        scope: &'scope Scope<'scope, 'env>,
        work: &'env (dyn Fn(I) -> O + Sync),
        together: Option<&'env dyn Together>,
    ) -> Self {
        let threads = std::thread::available_parallelism().map_or(1, |n| n.get());
        let together = together.filter(|all| all.size() > 1);
        Batches { scope, work, together, threads, waiting: Vec::new(), keys: Vec::new(), running: Vec::new() }
    }

    /// Adds a thing; `take` gets what became of earlier ones, in their order.
    ///
    /// # Errors
    /// The first of `take`, after which it gets no more, or another process is gone.
    pub(crate) fn add(&mut self, key: K, thing: I, take: impl FnMut(K, O) -> Result<()>) -> Result<()> {
        self.waiting.push((key, thing));
        let full = self.waiting.len() == BATCH * self.together.map_or(1, Together::size);
        if full { self.turn(take) } else { Ok(()) }
    }

    /// As [`Batches::add`], of all that has not been taken yet.
    ///
    /// # Errors
    /// As that.
    pub(crate) fn rest(&mut self, mut take: impl FnMut(K, O) -> Result<()>) -> Result<()> {
        self.turn(&mut take)?;
        self.turn(take)
    }

    /// Gives what became of the batch that is worked on, while threads are at the one that waits.
    fn turn(&mut self, mut take: impl FnMut(K, O) -> Result<()>) -> Result<()> {
        let done = self.collect()?;
        self.begin();
        let taken = done.into_iter().try_for_each(|(key, done)| take(key, done));
        if taken.is_err() {
            self.stop();
        }
        taken
    }

    /// Leaves what has not been taken yet.
    pub(crate) fn stop(&mut self) {
        self.waiting.clear();
        self.keys.clear();
        self.running.clear();
    }

    fn begin(&mut self) {
        let waiting = std::mem::take(&mut self.waiting);
        let (n, (rank, size)) = (waiting.len(), self.together.map_or((0, 1), |all| (all.rank(), all.size())));
        let own = n * rank / size..n * (rank + 1) / size;
        let mut things = Vec::with_capacity(own.len());
        for (i, (key, thing)) in waiting.into_iter().enumerate() {
            self.keys.push(key);
            things.extend(own.contains(&i).then_some(thing));
        }
        let share = own.len().div_ceil(self.threads).max(1);
        let (work, mut things) = (self.work, things.into_iter());
        while things.len() > 0 {
            let some: Vec<I> = things.by_ref().take(share).collect();
            self.running.push(self.scope.spawn(move || some.into_iter().map(work).collect()));
        }
    }

    fn collect(&mut self) -> Result<Vec<(K, O)>> {
        let threads = std::mem::take(&mut self.running).into_iter();
        let joined =
            threads.flat_map(|thread| thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)));
        let own: Vec<O> = joined.collect();
        let keys = std::mem::take(&mut self.keys);
        let done = match self.together.filter(|_| !keys.is_empty()) {
            Some(together) => told(together, &own)?,
            None => own,
        };
        if done.len() != keys.len() {
            return Err(Error::Data("another process has other rows".to_owned()));
        }
        Ok(keys.into_iter().zip(done).collect())
    }
}

/// What all processes have, by rank and in order.
fn told<O: Serialize + DeserializeOwned>(together: &dyn Together, own: &[O]) -> Result<Vec<O>> {
    let no_answer =
        |e| Error::Data(format!("another process sent what is no answer, it does something else: {e}"));
    let bytes = serde_json::to_vec(own).map_err(no_answer)?;
    let all = together.all(&bytes).map_err(Error::Data)?;
    let read = all.iter().map(|bytes| serde_json::from_slice::<Vec<O>>(bytes).map_err(no_answer));
    Ok(read.collect::<Result<Vec<_>>>()?.into_iter().flatten().collect())
}
