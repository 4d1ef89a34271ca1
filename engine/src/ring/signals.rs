//! Signals for one thread alone. A signal that reaches a thread in a system call interrupts it; here only the thread
//! that waits for them is ever reached.

use std::io;
use std::mem::MaybeUninit;
use std::ptr;

use signal_hook::consts::{SIGINT, SIGTERM, SIGUSR1};
use signal_hook::iterator::Signals;

/// Every signal that some thread of a process waits for.
const ALL: [i32; 3] = [SIGTERM, SIGINT, SIGUSR1];

/// Calls `handle` for each of `signals`, out of SIGTERM, SIGINT and SIGUSR1, on a thread of its own called `name`. The calling thread, and those it starts
/// from now on, are not disturbed by them.
///
/// # Errors
/// The handlers or the thread cannot be set up.
pub fn on_signals(
    name: &str,
    signals: &'static [i32],
    mut handle: impl FnMut(i32) + Send + 'static,
) -> io::Result<()> {
    let mut caught = Signals::new(signals)?;
    mask(libc::SIG_BLOCK, signals)?;
    std::thread::Builder::new()
        .name(name.into())
        .spawn(move || {
            // Those of other such threads are for them.
            let own = mask(libc::SIG_BLOCK, &ALL).and_then(|()| mask(libc::SIG_UNBLOCK, signals));
            if let Err(error) = own {
                tracing::error!(%error, "signals cannot be received");
            }
            for signal in caught.forever() {
                handle(signal);
            }
        })?;
    Ok(())
}

/// Blocks or unblocks `signals` for the calling thread.
fn mask(how: i32, signals: &[i32]) -> io::Result<()> {
    let mut set = MaybeUninit::uninit();
    // SAFETY: `set` is made empty before it is used, and is ours; the signals are numbers the calls check.
    let result = unsafe {
        libc::sigemptyset(set.as_mut_ptr());
        for &signal in signals {
            libc::sigaddset(set.as_mut_ptr(), signal);
        }
        libc::pthread_sigmask(how, set.as_ptr(), ptr::null_mut())
    };
    if result == 0 {
        Ok(())
    } else {
        Err(io::Error::from_raw_os_error(result))
    }
}
