//! The catalog on disk: `<data>/catalog`, an embedded transactional store. Every commit is durable when it returns.
//!
//! Tables: `meta` (text by text: `format`, `cluster_id`) and `topics` (a topic as JSON by its 16-byte id).

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use redb::{
    Database, ReadableDatabase, ReadableTable, StorageBackend, TableDefinition, WriteTransaction,
};
use ringlog_engine::id::TopicId;
use serde::{Deserialize, Serialize};
use thiserror::Error;

use super::copy::Copy;
use super::{Plan, Snapshot, Topic, Write};
use crate::config::{Config, topic as topic_config};

/// Version of the data directory's layout; rises when an older program could not read a newer directory.
pub const FORMAT: &str = "1";

const META: TableDefinition<'_, &str, &str> = TableDefinition::new("meta");
const TOPICS: TableDefinition<'_, [u8; 16], &[u8]> = TableDefinition::new("topics");

/// Why the catalog cannot be opened or changed.
#[derive(Debug, Error)]
pub enum StoreError {
    /// The store says so.
    #[error("{0}")]
    Store(String),
    /// The directory was written by another version.
    #[error("the directory has format {found}, this program reads format {FORMAT}")]
    Format {
        /// As stored.
        found: String,
    },
    /// A topic's entry does not parse.
    #[error("the entry of topic {id} is damaged: {why}")]
    Damaged {
        /// The topic.
        id: TopicId,
        /// What the parser says.
        why: String,
    },
}

/// The store's own errors are many types with one use here: their text.
fn store<E: std::fmt::Display>(error: E) -> StoreError {
    StoreError::Store(error.to_string())
}

/// A topic as it is stored.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Row {
    name: String,
    partitions: i32,
    internal: bool,
    configs: BTreeMap<String, String>,
}

/// Makes an empty store. It gets its name when it is whole, so that a crash leaves none or a good one.
fn create(path: &Path) -> Result<(), StoreError> {
    let new = path.with_extension("new");
    match std::fs::remove_file(&new) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(store(error)),
        _ => {}
    }
    drop(Database::create(&new).map_err(store)?);
    std::fs::rename(&new, path).map_err(store)?;
    let parent = path.parent().unwrap_or(Path::new("."));
    let parent = std::fs::File::open(parent).map_err(store)?;
    parent.sync_all().map_err(store)
}

/// A change whose damage is noticed. With one phase the store takes a damaged commit for one that a crash cut short and
/// goes back to the one before it: topics that are missing then are taken for deleted, and their logs removed.
fn begin(database: &Database) -> Result<WriteTransaction, StoreError> {
    let mut write = database.begin_write().map_err(store)?;
    write.set_two_phase_commit(true);
    Ok(write)
}

/// The open catalog.
pub struct Store {
    database: Database,
    /// The cluster's id.
    pub cluster_id: Arc<str>,
}

impl Store {
    /// Opens the catalog at `path`, creating it with `new_cluster_id` when it is absent.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn open(path: &Path, new_cluster_id: &str) -> Result<Self, StoreError> {
        if !path.exists() {
            create(path)?;
        }
        let database = Database::open(path).map_err(store)?;
        let write = begin(&database)?;
        let cluster_id = {
            let mut meta = write.open_table(META).map_err(store)?;
            write.open_table(TOPICS).map_err(store)?;
            let text = |key| -> Result<Option<String>, StoreError> {
                let value = meta.get(key).map_err(store)?;
                Ok(value.map(|v| v.value().to_owned()))
            };
            match (text("format")?, text("cluster_id")?) {
                (Some(format), Some(cluster_id)) if format == FORMAT => cluster_id,
                (Some(found), _) => return Err(StoreError::Format { found }),
                (None, _) => {
                    meta.insert("format", FORMAT).map_err(store)?;
                    meta.insert("cluster_id", new_cluster_id).map_err(store)?;
                    new_cluster_id.to_owned()
                }
            }
        };
        write.commit().map_err(store)?;
        Ok(Self {
            database,
            cluster_id: cluster_id.into(),
        })
    }

    /// Opens what a catalog's file holds without touching the file: whether the store itself finds it sound, and the
    /// catalog in it. Memory is that of the file, with a little more for the store's own repairs.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn open_copy(file: Vec<u8>) -> Result<(bool, Self), StoreError> {
        let backend = Copy::new(file);
        if backend.len().map_err(store)? == 0 {
            return Err(StoreError::Store("the file is empty".into()));
        }
        let mut database = Database::builder()
            .create_with_backend(backend)
            .map_err(store)?;
        let sound = database.check_integrity().map_err(store)?;
        let read = database.begin_read().map_err(store)?;
        let meta = read.open_table(META).map_err(store)?;
        let text = |key| -> Result<Option<String>, StoreError> {
            let value = meta.get(key).map_err(store)?;
            Ok(value.map(|v| v.value().to_owned()))
        };
        let (format, cluster_id) = (text("format")?, text("cluster_id")?);
        drop((meta, read));
        match (format, cluster_id) {
            (Some(format), Some(cluster_id)) if format == FORMAT => Ok((
                sound,
                Self {
                    database,
                    cluster_id: cluster_id.into(),
                },
            )),
            (found, _) => Err(StoreError::Format {
                found: found.unwrap_or_else(|| "unknown".into()),
            }),
        }
    }

    /// All topics.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn load(&self, config: &Config) -> Result<Snapshot, StoreError> {
        let read = self.database.begin_read().map_err(store)?;
        let table = read.open_table(TOPICS).map_err(store)?;
        let mut topics = Vec::new();
        for entry in table.iter().map_err(store)? {
            let (id, value) = entry.map_err(store)?;
            let id = TopicId(id.value());
            let row: Row =
                serde_json::from_slice(value.value()).map_err(|e| StoreError::Damaged {
                    id,
                    why: e.to_string(),
                })?;
            topics.push(Arc::new(Topic {
                name: row.name.into(),
                id,
                partitions: row.partitions,
                log: topic_config::log_config(config, &row.configs),
                configs: row.configs,
                internal: row.internal,
            }));
        }
        Ok(Snapshot::new(topics))
    }

    /// Makes a plan's changes durable, all or none.
    ///
    /// # Errors
    /// [`StoreError`]; nothing was changed then.
    pub fn commit(&mut self, plan: &Plan) -> Result<(), StoreError> {
        let write = begin(&self.database)?;
        {
            let mut table = write.open_table(TOPICS).map_err(store)?;
            for change in &plan.writes {
                match change {
                    Write::Put(topic) => {
                        let row = Row {
                            name: topic.name.to_string(),
                            partitions: topic.partitions,
                            internal: topic.internal,
                            configs: topic.configs.clone(),
                        };
                        let row = serde_json::to_vec(&row).map_err(store)?;
                        table.insert(topic.id.0, row.as_slice()).map_err(store)?;
                    }
                    Write::Remove(id) => {
                        table.remove(id.0).map_err(store)?;
                    }
                }
            }
        }
        write.commit().map_err(store)
    }
}
