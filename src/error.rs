//! Errors: one clear line that names the file or the flag, and what would help.

use std::path::{Path, PathBuf};

/// What can go wrong. `Display` is a single line without a trailing full stop or newline.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A file could not be read or written.
    #[error("{}: {source}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// A file was read, but what it holds is wrong.
    #[error("{}: {message}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// What is wrong with it, and the remedy.
        message: String,
    },
    /// An argument, or a combination of arguments, makes no sense.
    #[error("{0}")]
    Input(String),
    /// A computation gave a result that must not be used.
    #[error("{0}")]
    Numeric(String),
    /// There is no room for something; less at a time may fit.
    #[error("{0}")]
    Memory(String),
    /// A device failed or is not there.
    #[error("{0}")]
    Device(String),
}

/// The result of everything here that can fail.
pub type Result<T> = std::result::Result<T, Error>;

impl Error {
    /// An [`Error::Io`] for `path`.
    pub fn io(path: impl AsRef<Path>, source: std::io::Error) -> Self {
        Error::Io { path: path.as_ref().to_owned(), source }
    }

    /// An [`Error::File`] for `path`.
    pub fn file(path: impl AsRef<Path>, message: impl Into<String>) -> Self {
        Error::File { path: path.as_ref().to_owned(), message: message.into() }
    }

    /// An [`Error::Input`].
    pub fn input(message: impl Into<String>) -> Self {
        Error::Input(message.into())
    }
}
