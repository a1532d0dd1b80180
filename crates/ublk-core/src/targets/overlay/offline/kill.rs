//! The places in which tests end a verb, as a kill would.

#[cfg(not(test))]
pub(in super::super) use silent::point;
#[cfg(test)]
pub(in super::super) use tests::{after, point};

#[cfg(not(test))]
mod silent {
    /// A step of a verb that a kill may precede.
    #[expect(clippy::unnecessary_wraps, reason = "tests end a verb here")]
    pub(in super::super::super) fn point() -> std::io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;
    use std::io;

    thread_local! {
        static LEFT: Cell<Option<u32>> = const { Cell::new(None) };
        static KILLED: Cell<bool> = const { Cell::new(false) };
    }

    /// Runs `verb` and ends the verb after so many points. Answers what the verb answers, and whether the
    /// verb came to its end.
    pub(in super::super::super) fn after<T>(points: u32, verb: impl FnOnce() -> T) -> (T, bool) {
        LEFT.set(Some(points));
        KILLED.set(false);
        let answer = verb();
        LEFT.set(None);
        (answer, !KILLED.get())
    }

    pub(in super::super::super) fn point() -> io::Result<()> {
        match LEFT.get() {
            Some(0) => {
                KILLED.set(true);
                Err(io::Error::other("killed"))
            }
            left => {
                LEFT.set(left.map(|left| left - 1));
                Ok(())
            }
        }
    }
}
