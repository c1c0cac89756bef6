//! A boundary around libraries that panic on some foreign input: what they panic with becomes an error.

use std::any::Any;
use std::cell::Cell;
use std::panic::{self, AssertUnwindSafe};
use std::sync::Once;

thread_local! {
    /// Whether this thread is inside [`contain`], where a panic is an error of the input and nobody's business.
    static CONTAINED: Cell<bool> = const { Cell::new(false) };
}

/// Runs `work`; a panic in it is an error with the panic's message, and prints nothing.
///
/// What `work` was changing when it panicked must not be used afterwards.
pub(crate) fn contain<T>(work: impl FnOnce() -> T) -> Result<T, String> {
    static HOOK: Once = Once::new();
    HOOK.call_once(|| {
        let outer = panic::take_hook();
        panic::set_hook(Box::new(move |info| {
            if !CONTAINED.get() {
                outer(info);
            }
        }));
    });
    let before = CONTAINED.replace(true);
    let result = panic::catch_unwind(AssertUnwindSafe(work));
    CONTAINED.set(before);
    result.map_err(|payload| message(&*payload).to_owned())
}

fn message(payload: &(dyn Any + Send)) -> &str {
    let text = payload.downcast_ref::<String>().map(String::as_str);
    text.or_else(|| payload.downcast_ref::<&str>().copied()).unwrap_or("it gave no reason")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_panic_is_an_error() {
        assert_eq!(contain(|| 3), Ok(3));
        assert_eq!(contain(|| -> u8 { panic!("out of {}", "luck") }), Err("out of luck".into()));
        assert_eq!(contain(|| -> u8 { panic!("plain") }), Err("plain".into()));
        // Inside another, and after one that failed.
        let nested = contain(|| (contain(|| -> u8 { panic!("inner") }), CONTAINED.get()));
        assert_eq!(nested, Ok((Err("inner".into()), true)));
        assert!(!CONTAINED.get());
    }
}
