//! The data directory: made when absent, refused when it is something else.

use std::fs;
use std::path::Path;

use super::StartError;

/// What an empty data directory may hold: traces of starts that did not get far, and of the file system.
const HARMLESS: &[&str] = &["LOCK", ".probe", "catalog.new", "lost+found"];

/// Creates the directory when it is absent. One with files but no catalog is somebody else's.
pub(super) fn prepare(data: &Path) -> Result<(), StartError> {
    fs::create_dir_all(data).map_err(|e| StartError::directory(data, &e))?;
    let entries = fs::read_dir(data).map_err(|e| StartError::directory(data, &e))?;
    let mut foreign = None;
    for entry in entries {
        let name = entry
            .map_err(|e| StartError::directory(data, &e))?
            .file_name();
        match name.to_str() {
            Some("catalog") => return Ok(()),
            Some(harmless) if HARMLESS.contains(&harmless) => {}
            _ => foreign = Some(name),
        }
    }
    match foreign {
        None => Ok(()),
        Some(name) => Err(StartError::Format(format!(
            "data directory {} holds {name:?} but no ringlog catalog; give an empty directory or one that ringlog made",
            data.display()
        ))),
    }
}
