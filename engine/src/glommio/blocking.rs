//! Destage and file-system metadata, by plain calls on glommio's blocking threads, straight from and into the
//! core's buffers.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;

use rustix::io::Errno;

use crate::buf::{AlignedBuf, BLOCK};
use crate::disk::{Completion, DiskError, Op, OpKind, OpenMode, Returned};
use crate::ring::{Root, allocate, carry_out_slow};

use super::disk::Files;

/// Carries out one operation of the background.
pub(super) async fn carry_out(files: &Files, op: Op) -> Completion {
    let (result, returned) = match op.kind {
        OpKind::Write {
            file,
            offset,
            data,
            sync,
        } => match files.get(file) {
            Ok(file) => {
                let fd = file.fd.clone();
                on_thread(move || (write(fd.as_fd(), offset, &data, sync), Returned::Data(data)))
                    .await
            }
            Err(error) => (Err(error), Returned::Data(data)),
        },
        OpKind::Read {
            file,
            offset,
            len,
            mut buf,
        } => match files.get(file) {
            Ok(file) => {
                let fd = file.fd.clone();
                on_thread(move || (read(fd.as_fd(), offset, len, &mut buf), Returned::Buf(buf)))
                    .await
            }
            Err(error) => (Err(error), Returned::Buf(buf)),
        },
        kind => (metadata(files, kind).await, Returned::Nothing),
    };
    Completion {
        id: op.id,
        result,
        returned,
    }
}

async fn metadata(files: &Files, kind: OpKind) -> Result<(), DiskError> {
    let root = files.root.clone();
    match kind {
        OpKind::Open { file, path, mode } => {
            let fd = on_thread(move || root.file(&path, mode)).await?;
            files.opened(file, fd, mode, false).await
        }
        OpKind::CreateZeroed { file, .. } => {
            let fd = slow(root, kind).await?.ok_or(DiskError::INVALID)?;
            files.opened(file, fd, OpenMode::WriteDirect, true).await
        }
        OpKind::Close { file } => files.close(file).await,
        OpKind::RemoveDir { .. } => {
            // The semaphore is never closed.
            let _turn = files.removals.acquire_permit(1).await;
            slow(root, kind).await.map(drop)
        }
        OpKind::Sync { file } => {
            let fd = files.get(file)?.fd.clone();
            on_thread(move || Ok(rustix::fs::fdatasync(fd)?)).await
        }
        OpKind::Allocate { file, offset, len } => {
            let fd = files.get(file)?.fd.clone();
            on_thread(move || allocate(fd.as_fd(), offset, len)).await
        }
        OpKind::Truncate { file, len } => {
            let fd = files.get(file)?.fd.clone();
            on_thread(move || Ok(rustix::fs::ftruncate(fd, len)?)).await
        }
        OpKind::CreateDir { path } => on_thread(move || root.create_dir(&path)).await,
        OpKind::SyncDir { path } => on_thread(move || root.sync_dir(&path)).await,
        OpKind::Unlink { path } => on_thread(move || root.unlink(&path)).await,
        OpKind::SyncFs => slow(root, kind).await.map(drop),
        OpKind::Write { .. } | OpKind::Read { .. } => Err(DiskError::INVALID),
    }
}

async fn slow(root: Arc<Root>, kind: OpKind) -> Result<Option<OwnedFd>, DiskError> {
    on_thread(move || carry_out_slow(&root, &kind)).await
}

async fn on_thread<R: Send + 'static>(work: impl FnOnce() -> R + Send + 'static) -> R {
    glommio::executor().spawn_blocking(work).await
}

/// Writes all of `data`; the system says why it cannot when asked to go on.
fn write(fd: BorrowedFd<'_>, offset: u64, data: &[u8], sync: bool) -> Result<(), DiskError> {
    let mut done = 0;
    while done < data.len() {
        match rustix::io::pwrite(fd, &data[done..], offset + done as u64) {
            Ok(0) => return Err(DiskError::IO),
            Ok(n) => done += n,
            Err(Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
    if sync {
        rustix::fs::fdatasync(fd)?;
    }
    Ok(())
}

fn read(
    fd: BorrowedFd<'_>,
    offset: u64,
    len: usize,
    buf: &mut AlignedBuf,
) -> Result<(), DiskError> {
    buf.set_len(0);
    if len > buf.capacity() {
        return Err(DiskError::INVALID);
    }
    buf.set_len(len);
    let mut done = 0;
    let mut result = Ok(());
    while done < len {
        match rustix::io::pread(fd, &mut buf[done..], offset + done as u64) {
            Ok(0) => break,
            Ok(n) => {
                done += n;
                if !done.is_multiple_of(BLOCK) {
                    break;
                }
            }
            Err(Errno::INTR) => {}
            Err(error) => {
                result = Err(error.into());
                break;
            }
        }
    }
    buf.set_len(done);
    result
}
