//! What can go wrong with a server of a test.

use std::{fmt, io, path::PathBuf};

/// Why a server couldn't be started, stopped or asked. Its `Debug` is its `Display`, for tests that unwrap it.
#[derive(thiserror::Error)]
pub enum Error {
    /// A program that the server needs isn't installed.
    #[error("{program} is not installed: run `make tools` (looked in {looked})")]
    MissingTool {
        /// The program.
        program: String,
        /// Where it was looked for.
        looked: String,
    },
    /// A file or process of the server.
    #[error("{action}: {error}")]
    Io {
        /// What was being done.
        action: String,
        /// What the system said.
        error: io::Error,
    },
    /// The server ended, or didn't answer in time.
    #[error("{server} {reason}; the end of {}:\n{tail}", .log.display())]
    Server {
        /// Which server.
        server: String,
        /// What it did.
        reason: String,
        /// Its log.
        log: PathBuf,
        /// The last lines of its log.
        tail: String,
    },
    /// The server answered, but not what it should.
    #[error("{action}: {answer}")]
    Answer {
        /// What was asked.
        action: String,
        /// What it said.
        answer: String,
    },
}

impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl Error {
    pub(crate) fn answer(action: impl Into<String>, answer: impl fmt::Display) -> Self {
        Self::Answer {
            action: action.into(),
            answer: answer.to_string(),
        }
    }
}

/// Names the action that an I/O error interrupted.
pub(crate) trait While<T> {
    fn while_doing(self, action: impl FnOnce() -> String) -> Result<T, Error>;
}

impl<T> While<T> for io::Result<T> {
    fn while_doing(self, action: impl FnOnce() -> String) -> Result<T, Error> {
        self.map_err(|error| Error::Io {
            action: action(),
            error,
        })
    }
}
