//! Files that appear whole or not at all.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// The unfinished files, which [`abandon`] removes.
static PARTS: Mutex<Vec<PathBuf>> = Mutex::new(Vec::new());

fn parts() -> MutexGuard<'static, Vec<PathBuf>> {
    PARTS.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Lets `fill` write a file beside `path`, which then takes its place. A link stays one: what it
/// points to is replaced; what is no ordinary file (a device, a pipe) is written directly.
///
/// # Errors
/// What `fill` or the system says; nothing has changed then.
pub fn write<T>(path: &Path, fill: impl FnOnce(&mut File) -> io::Result<T>) -> io::Result<T> {
    let target = if path.is_symlink() { path.canonicalize()? } else { path.to_owned() };
    let old = fs::metadata(&target).ok();
    if old.as_ref().is_some_and(|old| !old.is_file()) {
        return fill(&mut File::options().write(true).open(&target)?);
    }
    let mut builder = tempfile::Builder::new();
    builder.prefix(".mzsr-").suffix(".part");
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        // As for any new file: the system takes the umask away.
        builder.permissions(fs::Permissions::from_mode(0o666));
    }
    let mut part = {
        let mut parts = parts();
        let folder = folder_of(&target);
        let part = builder.tempfile_in(folder).map_err(|error| plain(error, folder))?;
        parts.push(part.path().to_owned());
        part
    };
    let name = part.path().to_owned();
    let filled = fill(part.as_file_mut()).and_then(|made| {
        if let Some(old) = old {
            part.as_file().set_permissions(old.permissions())?;
        }
        part.persist(&target).map_err(|e| e.error)?;
        Ok(made)
    });
    parts().retain(|part| *part != name);
    filled
}

/// Removes what is being written, for a process that is about to end; no [`write`] begins or ends
/// after this.
pub fn abandon() {
    let parts = parts();
    for part in parts.iter() {
        // The file may have taken its place a moment ago.
        let _ = fs::remove_file(part);
    }
    std::mem::forget(parts);
}

/// Whether files can be made in the folder of `path`.
///
/// # Errors
/// What is in the way.
pub fn check(path: &Path) -> io::Result<()> {
    let folder = folder_of(path);
    tempfile::tempfile_in(folder).map(drop).map_err(|error| plain(error, folder))
}

fn folder_of(path: &Path) -> &Path {
    match path.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder,
        _ => Path::new("."),
    }
}

/// The error without the temporary file's name, which means nothing to a user.
fn plain(error: io::Error, folder: &Path) -> io::Error {
    match error.kind() {
        kind @ io::ErrorKind::NotFound if !folder.is_dir() => {
            io::Error::new(kind, "its folder does not exist; make it first")
        }
        kind @ (io::ErrorKind::NotFound | io::ErrorKind::PermissionDenied) => {
            io::Error::new(kind, "its folder cannot be written to; name another")
        }
        kind @ (io::ErrorKind::ReadOnlyFilesystem | io::ErrorKind::StorageFull) => kind.into(),
        _ => error,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    #[test]
    fn a_failure_leaves_the_old_file_and_nothing_else() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.txt");
        write(&path, |file| file.write_all(b"old")).unwrap();
        let failed: io::Result<()> = write(&path, |file| {
            file.write_all(b"half")?;
            Err(io::Error::other("no more"))
        });
        assert_eq!(failed.unwrap_err().to_string(), "no more");
        assert_eq!(fs::read(&path).unwrap(), b"old");
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
        let error = write(&folder.path().join("none/a.txt"), |_| Ok(())).unwrap_err();
        assert_eq!(error.to_string(), "its folder does not exist; make it first");
    }

    #[cfg(unix)]
    #[test]
    fn links_stay_and_permissions_too() {
        use std::os::unix::fs::PermissionsExt;
        let folder = tempfile::tempdir().unwrap();
        let (path, link) = (folder.path().join("a"), folder.path().join("link"));
        write(&path, |_| Ok(())).unwrap();
        assert_ne!(fs::metadata(&path).unwrap().permissions().mode() & 0o400, 0);
        fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).unwrap();
        std::os::unix::fs::symlink(&path, &link).unwrap();
        write(&link, |file| file.write_all(b"new")).unwrap();
        assert!(link.is_symlink() && fs::read(&path).unwrap() == b"new");
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o640);
        write(Path::new("/dev/null"), |file| file.write_all(b"gone")).unwrap();
    }
}
