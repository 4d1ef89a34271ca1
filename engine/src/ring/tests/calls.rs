//! Which system calls the shard's thread makes, watched by the kernel.

use std::io::{Read, Write};
use std::sync::atomic::{AtomicI64, Ordering};

use crate::buf::{AlignedBuf, BLOCK};
use crate::disk::{FileId, Lane, Op, OpId, OpKind, OpenMode, WriteData};
use crate::ring::SpanPath;
use crate::shard::{NetCommand, SendData};

use super::harness::{Ask, Harness, Mode};

/// The first call that was not allowed, or -1.
static FORBIDDEN: AtomicI64 = AtomicI64::new(-1);

/// What the loop may call: the ring, the two calls for an accepted connection and a journal file, and what
/// memory, channels and the test itself need. None of them waits for a disk.
const ALLOWED: [libc::c_long; 22] = [
    libc::SYS_io_uring_enter,
    libc::SYS_io_uring_register,
    libc::SYS_getpeername,
    // Wakes a helper: an eventfd, never a file.
    libc::SYS_write,
    libc::SYS_futex,
    libc::SYS_clock_gettime,
    libc::SYS_mmap,
    libc::SYS_munmap,
    libc::SYS_mremap,
    libc::SYS_madvise,
    libc::SYS_mprotect,
    libc::SYS_brk,
    libc::SYS_sched_yield,
    libc::SYS_rt_sigreturn,
    // A pipe, when spans are spliced.
    libc::SYS_pipe2,
    libc::SYS_fcntl,
    // Pages that are in memory are lent to a socket that does not block.
    crate::ring::cached::SYS_CACHESTAT,
    libc::SYS_sendfile,
    libc::SYS_getsockname,
    libc::SYS_setsockopt,
    // A mapping's bytes: the file's length first, then a send that does not wait.
    libc::SYS_fstat,
    libc::SYS_sendto,
];

extern "C" fn on_forbidden(_: i32, info: *mut libc::siginfo_t, _: *mut libc::c_void) {
    // The fields of SIGSYS: the call's address, then its number.
    // SAFETY: the kernel passes a valid record; the number lies behind three ints, padding and a pointer.
    let number = unsafe { info.cast::<i32>().add(6).read() };
    let _ = FORBIDDEN.compare_exchange(-1, i64::from(number), Ordering::Relaxed, Ordering::Relaxed);
}

/// From now on, a call of this thread that is not allowed, or a `write` of anything but 8 bytes, is noted and
/// not carried out.
fn watch() {
    use libc::{BPF_ABS, BPF_JEQ, BPF_JMP, BPF_K, BPF_LD, BPF_RET, BPF_W, sock_filter};
    let load = |offset| sock_filter {
        code: (BPF_LD | BPF_W | BPF_ABS) as u16,
        jt: 0,
        jf: 0,
        k: offset,
    };
    let skip_unless = |value: u32, over| sock_filter {
        code: (BPF_JMP | BPF_JEQ | BPF_K) as u16,
        jt: 0,
        jf: over,
        k: value,
    };
    let end = |with| sock_filter {
        code: (BPF_RET | BPF_K) as u16,
        jt: 0,
        jf: 0,
        k: with,
    };
    let mut program = vec![load(0)];
    for call in ALLOWED {
        if call == libc::SYS_write {
            // Low half of the third argument: the length.
            let check = [
                skip_unless(call as u32, 4),
                load(32),
                skip_unless(8, 1),
                end(libc::SECCOMP_RET_ALLOW),
                end(libc::SECCOMP_RET_TRAP),
            ];
            program.extend(check);
        } else {
            program.extend([skip_unless(call as u32, 1), end(libc::SECCOMP_RET_ALLOW)]);
        }
    }
    program.push(end(libc::SECCOMP_RET_TRAP));
    let filter = libc::sock_fprog {
        len: program.len() as u16,
        filter: program.as_mut_ptr(),
    };
    // SAFETY: the handler only touches an atomic; the program outlives the call that copies it.
    unsafe {
        let mut action: libc::sigaction = std::mem::zeroed();
        action.sa_sigaction = on_forbidden as *const () as usize;
        action.sa_flags = libc::SA_SIGINFO;
        assert_eq!(
            libc::sigaction(libc::SIGSYS, &raw const action, std::ptr::null_mut()),
            0
        );
        assert_eq!(libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), 0);
        let installed = libc::prctl(
            libc::PR_SET_SECCOMP,
            libc::SECCOMP_MODE_FILTER,
            &raw const filter,
        );
        assert_eq!(installed, 0);
    }
}

fn busy_day(path: SpanPath) {
    let harness = Harness::with(Mode::Listen, |config| config.span_path = path);
    harness.ask(Ask::Run(Box::new(watch)));
    std::fs::write(harness.dir.path().join("cold"), vec![1; 4 << 20]).unwrap();
    let op = |lane, kind| {
        let id = OpId(0);
        let completion = harness.op(Op { id, lane, kind });
        assert_eq!(completion.result, Ok(()));
    };
    let file = FileId(1);
    op(
        Lane::Background,
        OpKind::CreateZeroed {
            file,
            path: "journal".into(),
            len: 1 << 20,
        },
    );
    for n in 0..20 {
        let data = WriteData::Owned(AlignedBuf::zeroed(4 * BLOCK));
        let sync = true;
        let offset = n * 16384;
        op(
            Lane::Journal,
            OpKind::Write {
                file,
                offset,
                data,
                sync,
            },
        );
    }
    let cold = FileId(2);
    op(
        Lane::Background,
        OpKind::Open {
            file: cold,
            path: "cold".into(),
            mode: OpenMode::ReadBuffered,
        },
    );
    for n in 0..8u64 {
        let (offset, len) = (n * 8192, 65536);
        let buf = AlignedBuf::with_capacity(len);
        op(
            Lane::Read,
            OpKind::Read {
                file: cold,
                offset,
                len,
                buf,
            },
        );
    }
    op(Lane::Background, OpKind::SyncFs);
    for _ in 0..20 {
        let mut stream = harness.connect();
        let conn = harness.accepted();
        stream.write_all(&[3; 100_000]).unwrap();
        let bytes = SendData::Bytes(bytes::Bytes::from_static(&[7; 1000]));
        let span = SendData::Span(crate::core::FileSpan {
            file: cold,
            offset: 0,
            len: 4 << 20,
        });
        for data in [bytes, span] {
            harness.command(NetCommand::Send { conn, data });
        }
        let mut back = vec![0; 1000 + (4 << 20)];
        stream.read_exact(&mut back).unwrap();
        drop(stream);
        harness.closed();
    }
    op(Lane::Background, OpKind::Close { file: cold });
    op(Lane::Background, OpKind::Close { file });
    let stats = harness.stats.snapshot();
    assert_eq!((stats.commits, stats.received_bytes), (20, 2_000_000));
    assert_eq!(stats.span_bytes, 20 * (4 << 20));
    let forbidden = FORBIDDEN.load(Ordering::Relaxed);
    assert_eq!(
        forbidden, -1,
        "the shard's thread made system call {forbidden}"
    );
    // Ending joins threads and unmaps the ring, which the filter need not allow: the shard is left asleep.
    std::fs::remove_dir_all(harness.dir.path()).unwrap();
    std::mem::forget(harness);
}

#[test]
fn the_shards_thread_makes_no_call_that_blocks() {
    busy_day(SpanPath::Sendfile);
    busy_day(SpanPath::Mmap);
    busy_day(SpanPath::Splice);
    // And the watch works: a file opened on a watched thread is noticed. The thread could not end by itself.
    std::thread::spawn(|| {
        watch();
        // SAFETY: a plain call with a valid string.
        unsafe { libc::open(c"/dev/null".as_ptr(), libc::O_RDONLY) };
        loop {
            std::thread::park();
        }
    });
    let start = std::time::Instant::now();
    while FORBIDDEN.load(Ordering::Relaxed) != libc::SYS_openat {
        assert!(start.elapsed().as_secs() < 10);
        std::thread::yield_now();
    }
}
