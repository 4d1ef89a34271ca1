//! The same durable appends and scans through a plain file, two embedded key-value stores and a relational database.

use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use fjall::{Database as Fjall, Keyspace, KeyspaceCreateOptions, PersistMode};
use redb::{Database as Redb, Durability, ReadableDatabase, ReadableTable, TableDefinition};
use rusqlite::Connection;
use serde::{Deserialize, Serialize};

use super::{Figures, io_bytes};
use crate::disk::files::noise;
use crate::disk::measure::{Latencies, Stopwatch};
use crate::disk::{BenchError, Scratch};

const FOLDER: &str = "store";
const TABLE: TableDefinition<'static, u64, &[u8]> = TableDefinition::new("records");
/// Bytes of a record.
pub const RECORD: usize = 1024;
/// With its length before it, in the plain file.
const FRAMED: usize = RECORD + 4;
/// Share of the time that goes by before counting begins.
const WARM_SHARE: f64 = 0.2;

/// A store.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// A growing file with a length before each record, one write and one `fdatasync` a commit.
    File,
    /// fjall: a log-structured merge tree. The journal is synced at each commit.
    Lsm,
    /// redb: a B-tree with copy on write. A commit is immediate.
    BTree,
    /// SQLite: a table with an integer key, write-ahead log, `synchronous=FULL`.
    Sqlite,
}

/// One setting.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct StorePoint {
    /// Records of one durable commit.
    pub batch: u64,
    /// Where they go.
    pub store: Kind,
}

/// Appends for about `window`, each commit durable, then reads all of it in order. The store is gone afterwards.
///
/// # Errors
/// [`BenchError`].
pub fn measure(
    scratch: &Scratch,
    point: &StorePoint,
    window: Duration,
) -> Result<Figures, BenchError> {
    let folder = scratch.path().join(FOLDER);
    std::fs::create_dir_all(&folder).map_err(BenchError::file(FOLDER))?;
    let outcome = carry_out(scratch, point, window, &folder);
    std::fs::remove_dir_all(&folder).map_err(BenchError::file(FOLDER))?;
    outcome
}

fn carry_out(
    scratch: &Scratch,
    point: &StorePoint,
    window: Duration,
    folder: &Path,
) -> Result<Figures, BenchError> {
    let mut store = open(point.store, folder).map_err(BenchError::operation("opening a store"))?;
    let mut record = vec![0; RECORD];
    let mut next = 0u64;
    let mut commit = |store: &mut Box<dyn Store>, next: &mut u64| {
        // Every commit's records differ: what repeats might be compressed.
        noise(&mut record, *next);
        let first = *next;
        *next += point.batch;
        store
            .commit(first, point.batch, &record)
            .map_err(BenchError::operation("a commit"))
    };
    let warm_until = Instant::now() + window.mul_f64(WARM_SHARE);
    while Instant::now() < warm_until {
        scratch.check()?;
        commit(&mut store, &mut next)?;
    }
    let (begun_at, written) = (next, io_bytes().1);
    let (watch, mut latencies) = (Stopwatch::start(), Latencies::default());
    let ends = Instant::now() + window.mul_f64(1.0 - WARM_SHARE);
    while Instant::now() < ends || next == begun_at {
        scratch.check()?;
        let begun = Instant::now();
        commit(&mut store, &mut next)?;
        latencies.record(begun.elapsed());
    }
    let (wall_s, cpu_s) = (watch.wall_s(), watch.cpu_s());
    let records = (next - begun_at) as f64;
    let bytes = records * RECORD as f64;
    let written = (io_bytes().1 - written) as f64;
    let stored = bytes_of(folder).map_err(BenchError::file(FOLDER))? as f64;
    let scan = Stopwatch::start();
    let read = store.scan().map_err(BenchError::operation("a scan"))?;
    let scan_s = scan.wall_s();
    if read != next * RECORD as u64 {
        return Err(BenchError::Settings(format!(
            "a scan gave {read} bytes of {}",
            next * RECORD as u64
        )));
    }
    Ok(Figures::from([
        ("records_per_s".into(), records / wall_s),
        ("mb_per_s".into(), bytes / 1e6 / wall_s),
        ("p50_us".into(), latencies.us(50.0)),
        ("p99_us".into(), latencies.us(99.0)),
        ("cpu_s_per_gb".into(), cpu_s * 1e9 / bytes),
        ("written_per_byte".into(), written / bytes),
        (
            "stored_per_byte".into(),
            stored / (next as f64 * RECORD as f64),
        ),
        ("scan_mb_per_s".into(), read as f64 / 1e6 / scan_s),
    ]))
}

pub(super) trait Store {
    /// Stores `count` records under the keys from `first` on; durable when it returns.
    fn commit(&mut self, first: u64, count: u64, record: &[u8]) -> io::Result<()>;

    /// Reads every record in order of its key.
    fn each(&mut self, visit: &mut dyn FnMut(u64, &[u8])) -> io::Result<()>;

    /// Reads every record in order of its key; returns their bytes.
    fn scan(&mut self) -> io::Result<u64> {
        let mut bytes = 0;
        self.each(&mut |_, record| bytes += std::hint::black_box(record).len() as u64)?;
        Ok(bytes)
    }
}

/// Opens a store in a folder, or makes it there.
pub(super) fn open(kind: Kind, folder: &Path) -> io::Result<Box<dyn Store>> {
    Ok(match kind {
        Kind::File => Box::new(PlainFile::open(folder)?),
        Kind::Lsm => Box::new(Lsm::open(folder)?),
        Kind::BTree => Box::new(BTree::open(folder)?),
        Kind::Sqlite => Box::new(Sqlite::open(folder)?),
    })
}

struct PlainFile {
    file: std::fs::File,
    end: u64,
    buffer: Vec<u8>,
}

impl PlainFile {
    fn open(folder: &Path) -> io::Result<Self> {
        let mut options = std::fs::File::options();
        let options = options.read(true).write(true).create(true).truncate(false);
        let file = options.open(folder.join("file"))?;
        // A killed write may have left part of a record.
        let end = file.metadata()?.len();
        Ok(Self {
            file,
            end: end - end % FRAMED as u64,
            buffer: Vec::new(),
        })
    }
}

impl Store for PlainFile {
    fn commit(&mut self, _first: u64, count: u64, record: &[u8]) -> io::Result<()> {
        self.buffer.clear();
        for _ in 0..count {
            self.buffer
                .extend_from_slice(&(record.len() as u32).to_le_bytes());
            self.buffer.extend_from_slice(record);
        }
        self.file.write_all_at(&self.buffer, self.end)?;
        self.end += self.buffer.len() as u64;
        self.file.sync_data()
    }

    fn each(&mut self, visit: &mut dyn FnMut(u64, &[u8])) -> io::Result<()> {
        let (mut at, mut key) = (0, 0);
        let mut piece = vec![0; FRAMED * 256];
        while at < self.end {
            let wanted = piece.len().min((self.end - at) as usize);
            self.file.read_exact_at(&mut piece[..wanted], at)?;
            for framed in piece[..wanted].chunks_exact(FRAMED) {
                let (len, record) = framed.split_at(4);
                if len != (RECORD as u32).to_le_bytes() {
                    return Err(io::Error::other("a record of another length"));
                }
                visit(key, record);
                key += 1;
            }
            at += wanted as u64;
        }
        Ok(())
    }
}

struct Lsm {
    database: Fjall,
    records: Keyspace,
}

impl Lsm {
    fn open(folder: &Path) -> io::Result<Self> {
        let database = Fjall::builder(folder).open().map_err(io::Error::other)?;
        let records = database
            .keyspace("records", KeyspaceCreateOptions::default)
            .map_err(io::Error::other)?;
        Ok(Self { database, records })
    }
}

impl Store for Lsm {
    fn commit(&mut self, first: u64, count: u64, record: &[u8]) -> io::Result<()> {
        let mut batch = self.database.batch();
        for key in first..first + count {
            batch.insert(&self.records, key.to_be_bytes(), record);
        }
        batch.commit().map_err(io::Error::other)?;
        self.database
            .persist(PersistMode::SyncData)
            .map_err(io::Error::other)
    }

    fn each(&mut self, visit: &mut dyn FnMut(u64, &[u8])) -> io::Result<()> {
        for entry in self.records.iter() {
            let (key, record) = entry.into_inner().map_err(io::Error::other)?;
            let key = key.as_ref().try_into().map_err(io::Error::other)?;
            visit(u64::from_be_bytes(key), &record);
        }
        Ok(())
    }
}

struct BTree(Redb);

impl BTree {
    fn open(folder: &Path) -> io::Result<Self> {
        Redb::create(folder.join("tree"))
            .map(Self)
            .map_err(io::Error::other)
    }
}

impl Store for BTree {
    fn commit(&mut self, first: u64, count: u64, record: &[u8]) -> io::Result<()> {
        let mut write = self.0.begin_write().map_err(io::Error::other)?;
        write
            .set_durability(Durability::Immediate)
            .map_err(io::Error::other)?;
        {
            let mut table = write.open_table(TABLE).map_err(io::Error::other)?;
            for key in first..first + count {
                table.insert(key, record).map_err(io::Error::other)?;
            }
        }
        write.commit().map_err(io::Error::other)
    }

    fn each(&mut self, visit: &mut dyn FnMut(u64, &[u8])) -> io::Result<()> {
        let read = self.0.begin_read().map_err(io::Error::other)?;
        let table = read.open_table(TABLE).map_err(io::Error::other)?;
        for entry in table.iter().map_err(io::Error::other)? {
            let (key, record) = entry.map_err(io::Error::other)?;
            visit(key.value(), record.value());
        }
        Ok(())
    }
}

struct Sqlite(Connection);

impl Sqlite {
    fn open(folder: &Path) -> io::Result<Self> {
        let connection = Connection::open(folder.join("database")).map_err(io::Error::other)?;
        connection
            .execute_batch(
                "PRAGMA journal_mode=WAL; PRAGMA synchronous=FULL; \
                 CREATE TABLE IF NOT EXISTS records (id INTEGER PRIMARY KEY, value BLOB NOT NULL);",
            )
            .map_err(io::Error::other)?;
        Ok(Self(connection))
    }
}

impl Store for Sqlite {
    fn commit(&mut self, first: u64, count: u64, record: &[u8]) -> io::Result<()> {
        let transaction = self.0.transaction().map_err(io::Error::other)?;
        {
            let mut insert = transaction
                .prepare_cached("INSERT INTO records (id, value) VALUES (?1, ?2)")
                .map_err(io::Error::other)?;
            for key in first..first + count {
                insert
                    .execute((key as i64, record))
                    .map_err(io::Error::other)?;
            }
        }
        transaction.commit().map_err(io::Error::other)
    }

    fn each(&mut self, visit: &mut dyn FnMut(u64, &[u8])) -> io::Result<()> {
        let mut select = self
            .0
            .prepare("SELECT id, value FROM records ORDER BY id")
            .map_err(io::Error::other)?;
        let mut rows = select.query([]).map_err(io::Error::other)?;
        while let Some(row) = rows.next().map_err(io::Error::other)? {
            let key: i64 = row.get(0).map_err(io::Error::other)?;
            let value = row.get_ref(1).map_err(io::Error::other)?;
            visit(key as u64, value.as_blob().map_err(io::Error::other)?);
        }
        Ok(())
    }
}

/// Bytes that a folder's files take on the disk.
fn bytes_of(folder: &Path) -> io::Result<u64> {
    use std::os::unix::fs::MetadataExt;
    let mut folders: Vec<PathBuf> = vec![folder.to_owned()];
    let mut bytes = 0;
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder)? {
            let entry = entry?;
            // A store may remove a file of its own meanwhile.
            match entry.metadata() {
                Ok(metadata) if metadata.is_dir() => folders.push(entry.path()),
                Ok(metadata) => bytes += metadata.blocks() * 512,
                Err(_) => {}
            }
        }
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;
    use std::sync::atomic::AtomicBool;

    #[test]
    fn every_store_gives_back_what_it_took() {
        let stop = Arc::new(AtomicBool::new(false));
        let scratch = Scratch::new(env!("CARGO_MANIFEST_DIR").as_ref(), stop).unwrap();
        for store in [Kind::File, Kind::Lsm, Kind::BTree, Kind::Sqlite] {
            let point = StorePoint { batch: 3, store };
            // The scan compares with what was committed.
            let figures = measure(&scratch, &point, Duration::from_millis(20))
                .unwrap_or_else(|error| panic!("{store:?}: {error}"));
            assert!(figures["records_per_s"] > 0.0 && figures["scan_mb_per_s"] > 0.0);
        }
        assert_eq!(std::fs::read_dir(scratch.path()).unwrap().count(), 0);
    }
}
