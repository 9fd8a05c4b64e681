//! Keeps one readiness operation going for a descriptor whose interest changes.

use super::{Descriptor, Interest, Op, Ring};

/// The readiness of one descriptor, under one token.
pub struct Watch {
    fd: Descriptor,
    token: u64,
    state: State,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Idle,
    Armed(Interest),
    /// Its end is on the way.
    Cancelled,
}

impl std::fmt::Debug for Watch {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Watch(token {}, {:?})", self.token, self.state)
    }
}

impl Watch {
    /// Completions about `fd` will carry `token`, which nothing else on the ring may use.
    #[must_use]
    pub fn new(fd: Descriptor, token: u64) -> Self {
        Self {
            fd,
            token,
            state: State::Idle,
        }
    }

    /// Waits for `interest`. What is waited for already may be more, never less; so there may be a completion that
    /// nobody wants any more.
    pub fn want(&mut self, ring: &mut Ring, interest: Option<Interest>) {
        let Some(interest) = interest else { return };
        match self.state {
            State::Idle => {
                ring.submit(
                    self.token,
                    Op::Ready {
                        fd: self.fd.clone(),
                        interest,
                    },
                );
                self.state = State::Armed(interest);
            }
            State::Armed(armed) if armed.covers(interest) => {}
            State::Armed(_) => {
                ring.cancel_ready(self.token);
                self.state = State::Cancelled;
            }
            State::Cancelled => {}
        }
    }

    /// The completion with this token came (also when it was cancelled): the next [`Watch::want`] waits again.
    pub fn fired(&mut self) {
        self.state = State::Idle;
    }

    /// Ends it, for a descriptor that is to be closed; the last completion still comes.
    pub fn end(&mut self, ring: &mut Ring) {
        if self.is_waiting() {
            ring.cancel_ready(self.token);
            self.state = State::Cancelled;
        }
    }

    /// A completion is still to come.
    #[must_use]
    pub fn is_waiting(&self) -> bool {
        self.state != State::Idle
    }
}
