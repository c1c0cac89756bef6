//! Who started this process, and how many of it.

use duel_comm::{Launch, Result};
use duel_train::Error;

fn launch() -> Result<Option<Launch>> {
    Launch::of(|name| std::env::var(name).ok())
}

/// # Errors
/// A launcher started several processes of a command that is one: each would do all of the work, in the same folder.
pub fn alone() -> std::result::Result<(), Error> {
    match launch().map_err(|e| Error::new(e.to_string()))? {
        Some(Launch { by, size, .. }) if size > 1 => Err(Error::new(format!(
            "{by} started {size} processes of duel, each of which would do the same in the same folder: this duel works \
             in one process; start it once"
        ))),
        _ => Ok(()),
    }
}

/// Whether this process tells people what goes wrong: the first of those that were started together.
pub fn speaks() -> bool {
    !matches!(launch(), Ok(Some(Launch { rank: 1.., .. })))
}
