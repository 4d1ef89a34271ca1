//! What stores have left after their process was killed, or after a bit of their files flipped: written and read by processes of
//! their own, so that a store may crash without taking the measurement along.

use std::fs::{self, File};
use std::io::{self, Write};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::Random;
use super::stores::{Kind, RECORD, open};
use crate::disk::files::noise;

/// Records of a durable commit.
const BATCH: u64 = 4;
const BLOCK: usize = 4096;

/// What is there of the records 0, 1, 2, … that were committed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Found {
    /// As they were committed.
    pub right: u64,
    /// With other bytes.
    pub wrong: u64,
}

/// The record of a key.
fn fill(record: &mut [u8], key: u64) {
    noise(record, key.wrapping_mul(0x9e37_79b9_7f4a_7c15));
}

/// Commits records one batch after the other, and writes to `told` how many are durable after each; up to `most`, or until killed.
///
/// # Errors
/// The store's, or that nobody listens any more.
pub fn write(kind: Kind, folder: &Path, most: u64, mut told: impl Write) -> io::Result<()> {
    let mut store = open(kind, folder)?;
    let mut record = vec![0; RECORD];
    for first in (0..most).step_by(BATCH as usize) {
        // A commit stores one record several times; the first key says which.
        fill(&mut record, first);
        store.commit(first, BATCH, &record)?;
        writeln!(told, "{}", first + BATCH)?;
        told.flush()?;
    }
    Ok(())
}

/// Opens a store and reads everything.
///
/// # Errors
/// The store's: it has noticed that something is wrong.
pub fn read(kind: Kind, folder: &Path) -> io::Result<Found> {
    let mut store = open(kind, folder)?;
    let (mut found, mut wanted) = (Found::default(), vec![0; RECORD]);
    store.each(&mut |key, record| {
        fill(&mut wanted, key - key % BATCH);
        if record == wanted {
            found.right += 1;
        } else {
            found.wrong += 1;
        }
    })?;
    Ok(found)
}

/// Flips one bit somewhere in the files below `folder`, in a block that is not all zeros; which one follows from `seed`.
///
/// # Errors
/// What the system says; there is nothing to flip.
pub fn flip(folder: &Path, seed: u64) -> io::Result<()> {
    let mut blocks = Vec::new();
    let mut piece = [0; BLOCK];
    for path in files(folder)? {
        let file = File::open(&path)?;
        let len = file.metadata()?.len();
        for at in (0..len).step_by(BLOCK) {
            let piece = &mut piece[..BLOCK.min((len - at) as usize)];
            file.read_exact_at(piece, at)?;
            if piece.iter().any(|&byte| byte != 0) {
                blocks.push((path.clone(), at, piece.len() as u64));
            }
        }
    }
    let mut random = Random(seed);
    let place = random.below(blocks.len().max(1) as u64) as usize;
    let (path, at, len) = blocks
        .get(place)
        .ok_or_else(|| io::Error::other("nothing is stored"))?;
    let file = File::options().read(true).write(true).open(path)?;
    let at = at + random.below(*len);
    let mut byte = [0];
    file.read_exact_at(&mut byte, at)?;
    byte[0] ^= 1 << random.below(8);
    file.write_all_at(&byte, at)
}

/// Copies a folder's files; blocks of zeros become holes.
///
/// # Errors
/// What the system says.
pub fn copy(from: &Path, to: &Path) -> io::Result<()> {
    let mut piece = vec![0; 256 * BLOCK];
    for path in files(from)? {
        let inner = path.strip_prefix(from).map_err(io::Error::other)?;
        let place = to.join(inner);
        if let Some(parent) = place.parent() {
            fs::create_dir_all(parent)?;
        }
        let (source, target) = (File::open(&path)?, File::create(&place)?);
        let len = source.metadata()?.len();
        target.set_len(len)?;
        for at in (0..len).step_by(piece.len()) {
            let piece = &mut piece[..(256 * BLOCK).min((len - at) as usize)];
            source.read_exact_at(piece, at)?;
            if piece.iter().any(|&byte| byte != 0) {
                target.write_all_at(piece, at)?;
            }
        }
    }
    Ok(())
}

/// Every file below a folder, in a fixed order.
fn files(folder: &Path) -> io::Result<Vec<PathBuf>> {
    let (mut folders, mut files) = (vec![folder.to_owned()], Vec::new());
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder)? {
            let entry = entry?;
            match entry.file_type()? {
                kind if kind.is_dir() => folders.push(entry.path()),
                kind if kind.is_file() => files.push(entry.path()),
                _ => {}
            }
        }
    }
    files.sort();
    Ok(files)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flip_in_a_plain_file_goes_unnoticed_and_a_copy_is_whole() {
        let folder = tempfile::tempdir_in(env!("CARGO_MANIFEST_DIR")).unwrap();
        let (first, second) = (folder.path().join("a"), folder.path().join("b"));
        fs::create_dir(&first).unwrap();
        let mut told = Vec::new();
        write(Kind::File, &first, 64, &mut told).unwrap();
        assert!(told.ends_with(b"\n64\n"));
        copy(&first, &second).unwrap();
        let all = Found {
            right: 64,
            wrong: 0,
        };
        assert_eq!(read(Kind::File, &second).unwrap(), all);
        for seed in 0..4 {
            flip(&second, seed).unwrap();
        }
        let found = read(Kind::File, &second);
        assert!(found.is_err() || found.unwrap().wrong > 0);
        assert_eq!(read(Kind::File, &first).unwrap(), all);
    }

    #[test]
    fn every_store_is_opened_again() {
        for kind in [Kind::File, Kind::Lsm, Kind::BTree, Kind::Sqlite] {
            let folder = tempfile::tempdir_in(env!("CARGO_MANIFEST_DIR")).unwrap();
            write(kind, folder.path(), 32, io::sink()).unwrap();
            let found = read(kind, folder.path()).unwrap();
            assert_eq!((found.right, found.wrong), (32, 0), "{kind:?}");
        }
    }
}
