//! Operations that may take long, each on a thread of its own, so that nothing queues behind them: there are a
//! few a minute.

use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;

use crate::disk::{DiskError, OpKind, OpenMode};

use super::root::Root;
use super::zero::fill_with_zeros;

/// Whether `kind` is one of the operations carried out here.
pub(super) fn is_slow(kind: &OpKind) -> bool {
    matches!(
        kind,
        OpKind::SyncFs | OpKind::CreateZeroed { .. } | OpKind::RemoveDir { .. }
    )
}

/// Carries out `kind` on a new thread, which then calls `finish` with the result and the file it opened.
pub(super) fn start(
    root: &Arc<Root>,
    kind: OpKind,
    finish: impl FnOnce(Result<Option<OwnedFd>, DiskError>) + Send + 'static,
) {
    let root = root.clone();
    let finish = Arc::new(std::sync::Mutex::new(Some(finish)));
    let take = |finish: &std::sync::Mutex<Option<_>>| {
        finish
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner)
            .take()
    };
    let theirs = finish.clone();
    let spawned = std::thread::Builder::new()
        .name("ringlog-slow".into())
        .spawn(move || {
            let result = carry_out(&root, &kind);
            if let Some(finish) = take(&theirs) {
                finish(result);
            }
        });
    // Only a thread that never started leaves it behind.
    if let Err(error) = spawned
        && let Some(finish) = take(&finish)
    {
        finish(Err(error.into()));
    }
}

/// Carries out `kind` on this thread; the file it opened, if it opens one.
pub(crate) fn carry_out(root: &Root, kind: &OpKind) -> Result<Option<OwnedFd>, DiskError> {
    match kind {
        OpKind::SyncFs => root.sync_fs()?,
        OpKind::RemoveDir { path } => root.remove_dir(path)?,
        OpKind::CreateZeroed { path, len, .. } => {
            let file = root.file(path, OpenMode::WriteDirect)?;
            fill_with_zeros(file.as_fd(), *len)?;
            // Something longer may have lain there.
            rustix::fs::ftruncate(&file, *len)?;
            rustix::fs::fsync(&file)?;
            root.sync_dir(Root::parent(path))?;
            return Ok(Some(file));
        }
        _ => return Err(DiskError::INVALID),
    }
    Ok(None)
}
