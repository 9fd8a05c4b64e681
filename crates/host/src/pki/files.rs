//! Reading and writing PEM files with the right modes.

use super::PkiError;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::Path;

pub(super) const CA_CERTIFICATE: &str = "ca.crt";
pub(super) const CA_KEY: &str = "ca.key";
pub(super) const NODE_CERTIFICATE: &str = "node.crt";
pub(super) const NODE_KEY: &str = "node.key";

pub(super) const PUBLIC: u32 = 0o644;
pub(super) const PRIVATE: u32 = 0o600;

/// Longest PEM file that is read, in bytes. A longer one is no certificate of ours.
const PEM_MAX: u64 = 64 * 1024;

pub(super) fn make_directory(path: &Path) -> Result<(), PkiError> {
    fs::create_dir_all(path).map_err(|source| PkiError::Io {
        doing: "create",
        path: path.to_owned(),
        source,
    })
}

/// Writes a new file; an existing one is left alone and reported.
pub(super) fn write_new(path: &Path, mode: u32, text: &str) -> Result<(), PkiError> {
    let mut open = OpenOptions::new();
    open.write(true).create_new(true).mode(mode);
    match open
        .open(path)
        .and_then(|file| write_durably(file, mode, text))
    {
        Ok(()) => Ok(()),
        Err(e) if e.kind() == io::ErrorKind::AlreadyExists => Err(PkiError::Exists {
            path: path.to_owned(),
        }),
        Err(source) => Err(PkiError::Io {
            doing: "write",
            path: path.to_owned(),
            source,
        }),
    }
}

/// Replaces a file as a whole: readers see the old or the new one.
pub(super) fn replace(path: &Path, mode: u32, text: &str) -> Result<(), PkiError> {
    let fail = |source| PkiError::Io {
        doing: "write",
        path: path.to_owned(),
        source,
    };
    let mut draft = path.as_os_str().to_owned();
    draft.push(".new");
    match fs::remove_file(&draft) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(fail(e)),
        Ok(()) | Err(_) => {}
    }
    write_new(Path::new(&draft), mode, text)?;
    fs::rename(&draft, path).map_err(fail)
}

fn write_durably(mut file: File, mode: u32, text: &str) -> io::Result<()> {
    // The umask may have taken bits away.
    file.set_permissions(fs::Permissions::from_mode(mode))?;
    file.write_all(text.as_bytes())?;
    file.sync_all()
}

pub(super) fn read(path: &Path) -> Result<String, PkiError> {
    let fail = |source| PkiError::Io {
        doing: "read",
        path: path.to_owned(),
        source,
    };
    let length = fs::metadata(path).map_err(fail)?.len();
    if length > PEM_MAX {
        return Err(PkiError::Unreadable {
            path: path.to_owned(),
            what: "PEM: it is too long",
        });
    }
    fs::read_to_string(path).map_err(fail)
}

/// Reads a private key, and refuses one that others can read too.
pub(super) fn read_private(path: &Path) -> Result<String, PkiError> {
    let fail = |source| PkiError::Io {
        doing: "read",
        path: path.to_owned(),
        source,
    };
    let mode = fs::metadata(path).map_err(fail)?.permissions().mode() & 0o777;
    if mode & 0o077 != 0 {
        return Err(PkiError::Exposed {
            path: path.to_owned(),
            mode,
        });
    }
    read(path)
}
