//! The simulated file system: directories, names and files, and what a loss of power leaves of them.

use std::collections::{BTreeMap, BTreeSet};

use super::file::{FileNode, Mood};
use super::history::History;
use super::rng::Rng;
use crate::disk::{DiskError, EntryKind};
use crate::id::NAME_MAX;

/// `ENOTDIR`, `EISDIR`: the core never mixes the two up, so the numbers matter little.
const NOT_A_DIRECTORY: DiskError = DiskError(20);
const IS_A_DIRECTORY: DiskError = DiskError(21);
/// `ENAMETOOLONG`, of each component of a path alone.
const NAME_TOO_LONG: DiskError = DiskError(36);

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct NodeId(u64);

const ROOT: NodeId = NodeId(0);

#[derive(Debug, Default, Clone)]
struct DirNode {
    names: BTreeMap<String, History<Option<NodeId>>>,
}

#[derive(Debug, Clone)]
enum Node {
    Dir(DirNode),
    File(FileNode),
}

#[derive(Debug, Clone)]
pub(super) struct Tree {
    nodes: BTreeMap<NodeId, Node>,
    dirty: BTreeSet<NodeId>,
    next: u64,
    stamp: u64,
}

impl Tree {
    pub(super) fn new() -> Self {
        Self {
            nodes: BTreeMap::from([(ROOT, Node::Dir(DirNode::default()))]),
            dirty: BTreeSet::new(),
            next: 1,
            stamp: 0,
        }
    }

    /// The moment now: a sync that starts here covers every change with a stamp up to this one.
    pub(super) fn stamp(&self) -> u64 {
        self.stamp
    }

    fn touch(&mut self, node: NodeId) -> u64 {
        self.dirty.insert(node);
        self.stamp += 1;
        self.stamp
    }

    fn dir(&self, id: NodeId) -> Result<&DirNode, DiskError> {
        match self.nodes.get(&id) {
            Some(Node::Dir(dir)) => Ok(dir),
            Some(Node::File(_)) => Err(NOT_A_DIRECTORY),
            None => Err(DiskError::NOT_FOUND),
        }
    }

    pub(super) fn resolve(&self, path: &str) -> Result<NodeId, DiskError> {
        let mut at = ROOT;
        for name in path.split('/').filter(|n| !n.is_empty()) {
            let dir = self.dir(at)?;
            if name.len() > NAME_MAX {
                return Err(NAME_TOO_LONG);
            }
            let found = dir.names.get(name);
            at = found
                .and_then(|h| *h.current())
                .ok_or(DiskError::NOT_FOUND)?;
        }
        Ok(at)
    }

    /// The node of a regular file.
    pub(super) fn resolve_file(&self, path: &str) -> Result<NodeId, DiskError> {
        let id = self.resolve(path)?;
        match self.nodes.get(&id) {
            Some(Node::File(_)) => Ok(id),
            _ => Err(IS_A_DIRECTORY),
        }
    }

    /// The file of a handle.
    ///
    /// # Panics
    /// If it is gone: nodes stay while something has them open.
    pub(super) fn file(&self, id: NodeId) -> &FileNode {
        match self.nodes.get(&id) {
            Some(Node::File(file)) => file,
            other => panic!("handle leads to {other:?}"),
        }
    }

    /// The file of a handle, for changes that the next sync has to cover, with the change's stamp.
    pub(super) fn change_file(&mut self, id: NodeId) -> (&mut FileNode, u64) {
        let stamp = self.touch(id);
        match self.nodes.get_mut(&id) {
            Some(Node::File(file)) => (file, stamp),
            other => panic!("handle leads to {other:?}"),
        }
    }

    fn parent(&self, path: &str) -> Result<(NodeId, String), DiskError> {
        let path = path.trim_end_matches('/');
        let (parent, name) = path.rsplit_once('/').unwrap_or(("", path));
        let id = self.resolve(parent)?;
        self.dir(id)?;
        Ok((id, name.to_owned()))
    }

    fn link(&mut self, dir: NodeId, name: String, target: Option<NodeId>) {
        let stamp = self.touch(dir);
        if let Some(Node::Dir(dir)) = self.nodes.get_mut(&dir) {
            dir.names
                .entry(name)
                .or_insert_with(|| History::new(None))
                .set(stamp, target);
        }
    }

    fn add(&mut self, path: &str, node: Node) -> Result<NodeId, DiskError> {
        let (dir, name) = self.parent(path)?;
        let id = NodeId(self.next);
        self.next += 1;
        self.nodes.insert(id, node);
        self.link(dir, name, Some(id));
        Ok(id)
    }

    /// The file at `path`, made when absent.
    pub(super) fn open_or_create(&mut self, path: &str) -> Result<NodeId, DiskError> {
        match self.resolve_file(path) {
            Err(DiskError::NOT_FOUND) => self.add(path, Node::File(FileNode::new())),
            other => other,
        }
    }

    pub(super) fn create_dir(&mut self, path: &str) -> Result<(), DiskError> {
        match self.resolve(path) {
            Ok(id) => self.dir(id).map(|_| ()),
            Err(DiskError::NOT_FOUND) => self.add(path, Node::Dir(DirNode::default())).map(|_| ()),
            Err(error) => Err(error),
        }
    }

    pub(super) fn unlink(&mut self, path: &str) -> Result<(), DiskError> {
        let id = match self.resolve_file(path) {
            Ok(id) => id,
            Err(DiskError::NOT_FOUND) => return Ok(()),
            Err(error) => return Err(error),
        };
        let (dir, name) = self.parent(path)?;
        self.link(dir, name, None);
        if let Some(Node::File(file)) = self.nodes.get_mut(&id) {
            file.linked = false;
        }
        Ok(())
    }

    /// Removes a directory and all in it; each name is a change of its own, so a crash may leave any of them.
    pub(super) fn remove_dir(&mut self, path: &str) -> Result<(), DiskError> {
        let entries = match self.list(path) {
            Ok(entries) => entries,
            Err(DiskError::NOT_FOUND) => return Ok(()),
            Err(error) => return Err(error),
        };
        for (name, kind) in entries {
            let child = format!("{path}/{name}");
            match kind {
                EntryKind::File => self.unlink(&child)?,
                EntryKind::Dir => self.remove_dir(&child)?,
            }
        }
        let (dir, name) = self.parent(path)?;
        self.link(dir, name, None);
        Ok(())
    }

    pub(super) fn list(&self, path: &str) -> Result<Vec<(String, EntryKind)>, DiskError> {
        let dir = self.dir(self.resolve(path)?)?;
        let entry = |(name, history): (&String, &History<Option<NodeId>>)| {
            let kind = match self.nodes.get(&(*history.current())?)? {
                Node::Dir(_) => EntryKind::Dir,
                Node::File(_) => EntryKind::File,
            };
            Some((name.clone(), kind))
        };
        Ok(dir.names.iter().filter_map(entry).collect())
    }

    /// Bytes taken on the device.
    pub(super) fn used_bytes(&self) -> u64 {
        let files = self.nodes.values().map(|node| match node {
            Node::File(file) if file.linked => file.allocated_blocks(),
            _ => 0,
        });
        files.sum::<u64>() * crate::buf::BLOCK as u64
    }

    /// `fdatasync` of a file, `fsync` of a directory: covers what had happened by `horizon`.
    pub(super) fn sync_node(&mut self, id: NodeId, horizon: u64) {
        let clean = match self.nodes.get_mut(&id) {
            Some(Node::File(file)) => {
                file.settle(horizon);
                file.is_clean()
            }
            Some(Node::Dir(dir)) => {
                dir.names.values_mut().for_each(|h| h.settle(horizon));
                dir.names
                    .retain(|_, h| !h.is_clean() || h.current().is_some());
                dir.names.values().all(History::is_clean)
            }
            None => true,
        };
        if clean {
            self.dirty.remove(&id);
        }
    }

    pub(super) fn sync_all(&mut self, horizon: u64) {
        for id in self.dirty.clone() {
            self.sync_node(id, horizon);
        }
    }

    /// A sync of the node failed; see [`FileNode::fail_sync`]. Names stay pending.
    pub(super) fn fail_sync(&mut self, id: NodeId, horizon: u64, rng: &mut Rng) {
        match self.nodes.get_mut(&id) {
            Some(Node::File(file)) => file.fail_sync(horizon, rng),
            Some(Node::Dir(_)) | None => {}
        }
    }

    pub(super) fn fail_sync_all(&mut self, horizon: u64, rng: &mut Rng) {
        for id in self.dirty.clone() {
            self.fail_sync(id, horizon, rng);
        }
    }

    /// Power is lost. Every volatile name, size and block becomes one of what it may have been.
    pub(super) fn lose_power(&mut self, rng: &mut Rng) {
        let names = rng.pick(&[0, 50, 50, 90, 100]);
        for id in std::mem::take(&mut self.dirty) {
            match self.nodes.get_mut(&id) {
                Some(Node::Dir(dir)) => {
                    for history in dir.names.values_mut().filter(|h| !h.is_clean()) {
                        let target = history.survivor(rng, names);
                        history.resolve(target);
                    }
                    dir.names.retain(|_, h| h.current().is_some());
                }
                Some(Node::File(file)) => {
                    let mood = Mood::draw(rng);
                    file.lose_power(rng, mood);
                }
                None => {}
            }
        }
        self.forget_unreachable(&BTreeSet::new());
    }

    /// Drops nodes that no name leads to, now or after any crash, and that are not open.
    pub(super) fn forget_unreachable(&mut self, open: &BTreeSet<NodeId>) {
        let mut reachable = open.clone();
        reachable.insert(ROOT);
        let mut todo: Vec<NodeId> = reachable.iter().copied().collect();
        while let Some(id) = todo.pop() {
            if let Some(Node::Dir(dir)) = self.nodes.get(&id) {
                let targets = dir.names.values().flat_map(History::candidates);
                for &target in targets.flatten() {
                    if reachable.insert(target) {
                        todo.push(target);
                    }
                }
            }
        }
        self.nodes.retain(|id, _| reachable.contains(id));
        self.dirty.retain(|id| reachable.contains(id));
        self.relink();
    }

    /// Marks files by whether a name leads to them now.
    fn relink(&mut self) {
        let mut named = BTreeSet::new();
        for node in self.nodes.values() {
            if let Node::Dir(dir) = node {
                named.extend(dir.names.values().filter_map(|h| *h.current()));
            }
        }
        for (id, node) in &mut self.nodes {
            if let Node::File(file) = node {
                file.linked = named.contains(id);
            }
        }
    }
}
