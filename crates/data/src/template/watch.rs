//! An end for a template that is at a single instruction without end: the fuel counts instructions, a thread cannot be
//! stopped from outside, and so the program ends.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

/// What one conversation may take.
const MOST_TIME: Duration = Duration::from_secs(60);
const MOST_MEMORY: u64 = 1 << 30;
/// How often it is looked at. In this time a template can fill some hundreds of megabytes.
const EVERY: Duration = Duration::from_millis(20);

/// What is being rendered: where its template is from, and since when.
#[derive(Default)]
struct Running {
    all: BTreeMap<u64, (Arc<str>, Instant)>,
    next: u64,
}

static RUNNING: OnceLock<Mutex<Running>> = OnceLock::new();

/// Has `end` called where a chat template takes more than a minute or 1 GiB for one conversation, which it does where
/// one instruction of it works on a text or a list that is far too long: with what is wrong, from a thread of its own.
/// Nothing can stop that template, so `end` has to end the program. The memory is known on Linux alone.
pub fn watch_templates(end: impl Fn(&str) + Send + 'static) {
    if RUNNING.set(Mutex::default()).is_ok() {
        // Where there is no thread for it, templates are not watched, as in a program that does not ask for it.
        drop(
            thread::Builder::new()
                .name("templates".into())
                .spawn(move || watch(MOST_TIME, MOST_MEMORY, &end)),
        );
    }
}

fn lock(running: &Mutex<Running>) -> std::sync::MutexGuard<'_, Running> {
    running.lock().unwrap_or_else(PoisonError::into_inner)
}

fn watch(time: Duration, memory: u64, end: &dyn Fn(&str)) {
    let Some(running) = RUNNING.get() else { return };
    // The rendering that has gone on for longest, and the memory when it was first seen.
    let mut oldest = None;
    loop {
        thread::sleep(EVERY);
        let Some((id, (place, since))) =
            lock(running).all.first_key_value().map(|(id, about)| (*id, about.clone()))
        else {
            oldest = None;
            continue;
        };
        let too_much = |what: &dyn fmt::Display| {
            end(&format!(
                "the chat template of {place} takes more than {what} for one conversation; it may never end: look at \
                 the template"
            ));
        };
        if since.elapsed() > time {
            too_much(&format_args!("{} s", time.as_secs()));
        }
        let now = resident();
        match oldest {
            Some((seen, before)) if seen == id => {
                if now.saturating_sub(before) > memory {
                    too_much(&format_args!("{} MB", memory >> 20));
                }
            }
            _ => oldest = Some((id, now)),
        }
    }
}

/// Bytes of memory that the process has; 0 where that is not known.
fn resident() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    line.and_then(|line| line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()).unwrap_or(0) << 10
}

/// Runs `render`, with a template from `place`, under the eye of [`watch_templates`].
pub(super) fn watched<T>(place: &Arc<str>, render: impl FnOnce() -> T) -> T {
    struct Seen<'r>(&'r Mutex<Running>, u64);

    impl Drop for Seen<'_> {
        fn drop(&mut self) {
            lock(self.0).all.remove(&self.1);
        }
    }

    let _seen = RUNNING.get().map(|running| {
        let mut all = lock(running);
        let id = all.next;
        all.next += 1;
        all.all.insert(id, (Arc::clone(place), Instant::now()));
        Seen(running, id)
    });
    render()
}
